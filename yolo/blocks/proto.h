// Mask prototypes (spec 1.3): Conv 3x3, transposed convolution to twice the size, Conv 3x3, Conv 1x1; a mask is a linear
// combination of the results. The last Conv has its SiLU, so values are above -0.2785.
#pragma once

#include "nn/layers/conv_bn_act.h"
#include "nn/layers/conv_transpose2d.h"

namespace tessera {

class Proto : public UnaryModule {
 public:
  Proto(int64_t in, int64_t hidden, int64_t masks);
  Variable forward(const Variable& x, const Tensor& into = {}) override;  // (N,h,w,in) -> (N,2h,2w,masks)
  std::string kind() const override { return "Proto"; }

  ConvBnAct cv1;
  ConvTranspose2d upsample;
  ConvBnAct cv2, cv3;
};

}  // namespace tessera
