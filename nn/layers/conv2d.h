// Convolution layer: weight (O, k, k, I), optional bias (O). Formula in tensor/ops/conv.h.
#pragma once

#include "autograd/functions/conv.h"
#include "nn/module.h"

namespace tessera {

class Conv2d : public UnaryModule {
 public:
  Conv2d(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1, int64_t pad = 0, bool with_bias = true);
  Variable forward(const Variable& x, const Tensor& into = {}) override;  // into: only when nothing is recorded
  Variable forward_wide(const Variable& x);  // ag::conv2d_wide
  ag::ConvWithStats forward_with_stats(const Variable& x, double eps, const ops::RunningStats& running);  // ag::conv2d_with_stats
  std::string kind() const override { return "Conv2d"; }
  std::string summary() const override;

  ConvParams params;
  Variable weight;
  Variable bias;  // undefined without bias
};

}  // namespace tessera
