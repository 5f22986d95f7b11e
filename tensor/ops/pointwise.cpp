#include "tensor/ops/pointwise.h"

#include "tensor/ops/checks.h"

namespace tessera {

std::string_view name_of(UnaryOp op) {
  switch (op) {
    case UnaryOp::kSilu: return "silu";
    case UnaryOp::kSigmoid: return "sigmoid";
    case UnaryOp::kRelu: return "relu";
    case UnaryOp::kTanh: return "tanh";
    case UnaryOp::kExp: return "exp";
    case UnaryOp::kLog: return "log";
    case UnaryOp::kSqrt: return "sqrt";
    case UnaryOp::kSquare: return "square";
    case UnaryOp::kNegate: return "negate";
    case UnaryOp::kAbs: return "abs";
    case UnaryOp::kSoftplus: return "softplus";
  }
  return "?";
}

std::string_view name_of(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd: return "add";
    case BinaryOp::kSubtract: return "subtract";
    case BinaryOp::kMultiply: return "multiply";
    case BinaryOp::kDivide: return "divide";
    case BinaryOp::kMaximum: return "maximum";
    case BinaryOp::kMinimum: return "minimum";
  }
  return "?";
}

namespace ops {

Tensor unary(UnaryOp op, const Tensor& x, const Tensor& into) {
  check_floating(name_of(op), "x", x);
  const Tensor in = readable(x);
  Tensor y = output(name_of(op), into, x.shape(), x);
  backend_for(x.device()).unary(op, in.rows(), y.rows());
  return y;
}

Tensor unary_backward(UnaryOp op, const Tensor& x, const Tensor& dy) {
  check_floating(name_of(op), "x", x);
  check_like(name_of(op), "dy", dy, x.shape(), x);
  const Tensor in = readable(x);
  const Tensor gradient = readable(dy);
  Tensor dx = Tensor::empty(x.shape(), x.dtype(), x.device());
  backend_for(x.device()).unary_backward(op, in.rows(), gradient.rows(), dx.rows(), /*accumulate=*/false);
  return dx;
}

Tensor binary(BinaryOp op, const Tensor& a, const Tensor& b) {
  check_defined(name_of(op), "a", a);
  check_type_and_device(name_of(op), "b", b, a.dtype(), a.device());
  if (op == BinaryOp::kDivide) check_floating(name_of(op), "a", a);
  const Shape shape = broadcast(a.shape(), b.shape());
  Tensor y = Tensor::empty(shape, a.dtype(), a.device());
  backend_for(a.device()).binary(op, a.expand(shape).strided(), b.expand(shape).strided(), y.strided());
  return y;
}

void add_scaled(const Tensor& x, double alpha, const Tensor& y) {
  check_floating("add_scaled", "x", x);
  check_like("add_scaled", "y", y, x.shape(), x);
  const Tensor in = readable(x);
  backend_for(x.device()).add_scaled(in.rows(), alpha, written("add_scaled", "y", y).rows());
}

Tensor scale(const Tensor& x, double alpha) {
  check_floating("scale", "x", x);
  const Tensor in = readable(x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  backend_for(x.device()).scale(in.rows(), alpha, y.rows());
  return y;
}

Tensor scale_u8(const Tensor& x, double alpha, DType type) {
  check_defined("scale_u8", "x", x);
  TESSERA_CHECK(x.dtype() == DType::kU8 && is_floating(type), "scale_u8: got x {} for a result in {}, expected u8 for a floating type",
                describe(x), name_of(type));
  const Tensor in = readable(x);
  Tensor y = Tensor::empty(x.shape(), type, x.device());
  backend_for(x.device()).scale(in.rows(), alpha, y.rows());
  return y;
}

}  // namespace ops

}  // namespace tessera
