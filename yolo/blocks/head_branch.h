// One branch of the head on one level (spec 1.4): Conv 3x3, Conv 3x3, and a plain 1x1 convolution with bias that gives the logits.
// Beside 16-bit activations the last one works in f32: its output is not rounded, and it is 2 % of the arithmetic.
#pragma once

#include "nn/layers/conv_bn_act.h"

namespace tessera {

class HeadBranch : public UnaryModule {
 public:
  HeadBranch(int64_t in, int64_t hidden, int64_t out);
  Variable forward(const Variable& x, const Tensor& into = {}) override;
  std::string kind() const override { return "HeadBranch"; }

  ConvBnAct conv0, conv1;
  Conv2d predict;
};

}  // namespace tessera
