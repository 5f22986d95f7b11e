// Softmax over the last axis, y = exp(x) / sum exp(x), and its logarithm; neither overflows.
#pragma once

#include "tensor/tensor.h"

namespace tessera {

class SoftmaxOps {
 public:
  virtual ~SoftmaxOps() = default;
  virtual void softmax(RowsView x, RowsView y, bool log) = 0;  // y may be x
  // softmax: dx = y * (dy - sum(y * dy)); log: dx = dy - exp(y) * sum(dy).
  virtual void softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) = 0;
};

namespace ops {
Tensor softmax(const Tensor& x);
Tensor log_softmax(const Tensor& x);
Tensor softmax_backward(const Tensor& y, const Tensor& dy);
Tensor log_softmax_backward(const Tensor& y, const Tensor& dy);
}  // namespace ops

}  // namespace tessera
