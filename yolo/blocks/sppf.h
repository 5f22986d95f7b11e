// SPPF, fast spatial pyramid pooling (spec 1.3): three chained 5x5 max pools see 5, 9 and 13 pixels.
//   y0 = cv1(x);  y[k+1] = maxpool(y[k]);  result = cv2([y0 | y1 | y2 | y3])
// As in C2f the parts share one buffer.
#pragma once

#include "nn/layers/conv_bn_act.h"

namespace tessera {

class Sppf : public UnaryModule {
 public:
  Sppf(int64_t in, int64_t out, int64_t kernel = 5);
  Variable forward(const Variable& x, const Tensor& into = {}) override;
  std::string kind() const override { return "SPPF"; }
  std::string summary() const override;
  int64_t kernel() const { return kernel_; }

  static constexpr int64_t kPools = 3;

  ConvBnAct cv1, cv2;

 private:
  int64_t hidden_, kernel_;
};

}  // namespace tessera
