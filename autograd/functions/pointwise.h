// Differentiable elementwise operations.
#pragma once

#include "autograd/variable.h"
#include "tensor/ops/pointwise.h"

namespace tessera::ag {

Variable unary(UnaryOp op, const Variable& x);
inline Variable silu(const Variable& x) { return unary(UnaryOp::kSilu, x); }
inline Variable sigmoid(const Variable& x) { return unary(UnaryOp::kSigmoid, x); }

// NumPy broadcasting; the gradient is summed back over broadcast axes. Not differentiable: kMaximum and kMinimum (error).
Variable binary(BinaryOp op, const Variable& a, const Variable& b);
inline Variable add(const Variable& a, const Variable& b) { return binary(BinaryOp::kAdd, a, b); }
inline Variable subtract(const Variable& a, const Variable& b) { return binary(BinaryOp::kSubtract, a, b); }
inline Variable multiply(const Variable& a, const Variable& b) { return binary(BinaryOp::kMultiply, a, b); }
inline Variable divide(const Variable& a, const Variable& b) { return binary(BinaryOp::kDivide, a, b); }
Variable scale(const Variable& x, double alpha);  // alpha * x
Variable cast(const Variable& x, DType type);     // x itself when it has that type; the gradient is cast back

}  // namespace tessera::ag
