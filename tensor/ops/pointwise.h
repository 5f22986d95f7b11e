// Elementwise operations and their derivatives. Unary ops take Dense or Pitched tensors (rows), binary ops broadcast.
#pragma once

#include <optional>

#include "tensor/tensor.h"

namespace tessera {

// f(x) and, for the backward pass, f'(x); see pointwise_functors.h for the formulas.
enum class UnaryOp { kSilu, kSigmoid, kRelu, kTanh, kExp, kLog, kSqrt, kSquare, kNegate, kAbs, kSoftplus };
enum class BinaryOp { kAdd, kSubtract, kMultiply, kDivide, kMaximum, kMinimum };

class PointwiseOps {
 public:
  virtual ~PointwiseOps() = default;
  virtual void unary(UnaryOp op, RowsView x, RowsView y) = 0;  // y = f(x); y may be x
  // dx (+)= dy * f'(x); dx may be dy when not accumulating.
  virtual void unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) = 0;
  virtual void binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) = 0;  // equal shapes (stride 0 broadcasts)
  virtual void add_scaled(RowsView x, double alpha, RowsView y) = 0;  // y += alpha * x
  // y = alpha * x; y may be x. x may be u8, and y of any floating type then.
  virtual void scale(RowsView x, double alpha, RowsView y) = 0;
};

std::string_view name_of(UnaryOp op);
std::string_view name_of(BinaryOp op);

namespace ops {
// `into`, where an op offers it, is where the result goes (a slice of a larger buffer); undefined: a new dense tensor.
Tensor unary(UnaryOp op, const Tensor& x, const Tensor& into = {});
Tensor unary_backward(UnaryOp op, const Tensor& x, const Tensor& dy);
Tensor binary(BinaryOp op, const Tensor& a, const Tensor& b);
void add_scaled(const Tensor& x, double alpha, const Tensor& y);  // y += alpha * x, equal shapes
Tensor scale(const Tensor& x, double alpha);
Tensor scale_u8(const Tensor& x, double alpha, DType type);  // of pixels; the result is of `type`
}  // namespace ops

}  // namespace tessera
