// From the name of a unary op to its functor, for the backends that take the formulas of pointwise_functors.h as they are.
#pragma once

#include "tensor/ops/pointwise.h"
#include "tensor/ops/pointwise_functors.h"

namespace tessera {

// f(functor of the op).
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // f runs where its caller does
#endif
template <class F>
TESSERA_HOST_DEVICE inline void with_functor(UnaryOp op, F&& f) {
  switch (op) {
    case UnaryOp::kSilu: return f(functors::Silu{});
    case UnaryOp::kSigmoid: return f(functors::Sigmoid{});
    case UnaryOp::kRelu: return f(functors::Relu{});
    case UnaryOp::kTanh: return f(functors::Tanh{});
    case UnaryOp::kExp: return f(functors::Exp{});
    case UnaryOp::kLog: return f(functors::Log{});
    case UnaryOp::kSqrt: return f(functors::Sqrt{});
    case UnaryOp::kSquare: return f(functors::Square{});
    case UnaryOp::kNegate: return f(functors::Negate{});
    case UnaryOp::kAbs: return f(functors::Abs{});
    case UnaryOp::kSoftplus: return f(functors::Softplus{});
  }
}

}  // namespace tessera
