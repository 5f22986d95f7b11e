// Differentiable convolutions, channels last; formulas in tensor/ops/conv.h. With x in 16 bits, w and bias are f32 masters: w is
// rounded to the type of x for the products, and its gradient is f32.
#pragma once

#include "autograd/variable.h"
#include "tensor/ops/norm.h"

namespace tessera::ag {

// x (N,H,W,I), w (O,kH,kW,I), bias (O) or undefined.
Variable conv2d(const Variable& x, const Variable& w, const Variable& bias, const ConvParams& p);
// The same with the result in wide_of(the type of x), as it is summed: what 16-bit features predict. Where the backend cannot write
// that beside 16-bit operands, x is widened first and meets the filter as it is.
Variable conv2d_wide(const Variable& x, const Variable& w, const Variable& bias, const ConvParams& p);
// Without bias and with the statistics that a batch norm of the result asks for, where the backend has them on the way
// (Backend::joins_conv2d_and_stats); elsewhere they are undefined, and `running` is as it was.
struct ConvWithStats {
  Variable y;
  ops::BatchNormStats stats;
};
ConvWithStats conv2d_with_stats(const Variable& x, const Variable& w, const ConvParams& p, double eps,
                                const ops::RunningStats& running);
// x (N,H,W,I), w (O,2,2,I), bias (O) or undefined; doubles height and width. `recompute`: who needs the result in its backward pass
// has it made again (Node::recompute), which pays where that is one convolution.
Variable conv_transpose2x2(const Variable& x, const Variable& w, const Variable& bias, bool recompute = false);

}  // namespace tessera::ag
