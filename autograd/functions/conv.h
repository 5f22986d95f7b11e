// Differentiable convolutions, channels last; formulas in tensor/ops/conv.h. With x in 16 bits, w and bias are f32 masters: w is
// rounded to the type of x for the products, and its gradient is f32.
#pragma once

#include "autograd/variable.h"
#include "tensor/ops/norm.h"

namespace tessera::ag {

// x (N,H,W,I), w (O,kH,kW,I), bias (O) or undefined.
Variable conv2d(const Variable& x, const Variable& w, const Variable& bias, const ConvParams& p);
// The same with a result of the type that sums have: f32 for an x in 16 bits (wide_of). For the last convolutions of a head, whose
// logits must not be rounded to 16 bits. A backend that cannot do that with 16-bit operands has x widened first, and its filter not
// rounded.
Variable conv2d_wide(const Variable& x, const Variable& w, const Variable& bias, const ConvParams& p);
// A convolution without bias that also forms the statistics of its result, for the batch norm that follows, and updates `running`.
// Only some backends do that in one pass (Backend::joins_conv2d_and_stats); with the others `stats` is undefined and `running`
// stays as it was.
struct ConvWithStats {
  Variable y;
  ops::BatchNormStats stats;
};
ConvWithStats conv2d_with_stats(const Variable& x, const Variable& w, const ConvParams& p, double eps,
                                const ops::RunningStats& running);
// x (N,H,W,I), w (O,2,2,I), bias (O) or undefined; y (N,2H,2W,O). With `recompute` the result is not kept for the backward pass of
// the operations that read it, but made again (Node::recompute): worth it where a single convolution reads it.
Variable conv_transpose2x2(const Variable& x, const Variable& w, const Variable& bias, bool recompute = false);

}  // namespace tessera::ag
