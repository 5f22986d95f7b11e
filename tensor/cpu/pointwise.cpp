// Elementwise operations. Formulas and special cases are those of tensor/ops/pointwise_functors.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/pointwise.cpp"
#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows-inl.h"
#include "tensor/cpu/strided.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

// s (1 - s) = e / (1 + e)^2 with e = e^-|x|, accurate where s is close to 1.
HWY_INLINE V sigmoid_slope(V x) {
  const V e = exp_minus_abs(x);
  const V r = reciprocal(hn::Add(e, splat(1.0f)));
  return hn::Mul(hn::Mul(e, r), r);
}

struct Silu {
  static V f(V x) { return hn::Mul(x, sigmoid(x)); }
  static V df(V x) { return hn::MulAdd(x, sigmoid_slope(x), sigmoid(x)); }
};
struct Sigmoid {
  static V f(V x) { return sigmoid(x); }
  static V df(V x) { return sigmoid_slope(x); }
};
// Into bf16.
struct SiluShort {
  static V f(V x) { return hn::Mul(x, sigmoid_for<BFloat16>(x)); }
  static V df(V x) {
    const V s = sigmoid_for<BFloat16>(x);
    const V one = splat(1.0f);
    return hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one));
  }
};
struct Relu {
  static V f(V x) { return at_least(0.0f, x); }
  static V df(V x) { return hn::IfThenElseZero(hn::Gt(x, hn::Zero(F32())), splat(1.0f)); }
};
struct Tanh {
  static V f(V x) { return tanh(x); }
  static V df(V x) {
    const V y = tanh(x);
    return hn::NegMulAdd(y, y, splat(1.0f));
  }
};
struct Exp {
  static V f(V x) { return exp(x); }
  static V df(V x) { return exp(x); }
};
struct Log {
  static V f(V x) { return log(x); }
  static V df(V x) { return hn::Div(splat(1.0f), x); }
};
struct Sqrt {
  static V f(V x) { return hn::Sqrt(x); }
  static V df(V x) { return hn::Div(splat(0.5f), hn::Sqrt(x)); }
};
struct Square {
  static V f(V x) { return hn::Mul(x, x); }
  static V df(V x) { return hn::Add(x, x); }
};
struct Negate {
  static V f(V x) { return hn::Neg(x); }
  static V df(V) { return splat(-1.0f); }
};
struct Abs {
  static V f(V x) { return hn::Abs(x); }
  static V df(V x) {
    const V zero = hn::Zero(F32());
    return hn::Sub(hn::IfThenElseZero(hn::Gt(x, zero), splat(1.0f)), hn::IfThenElseZero(hn::Lt(x, zero), splat(1.0f)));
  }
};
struct Softplus {
  static V f(V x) { return softplus(x); }
  static V df(V x) { return sigmoid(x); }
};

// What computes a functor's values for results of type T.
template <class Functor, class T>
using For = std::conditional_t<std::is_same_v<Functor, Silu> && std::is_same_v<T, BFloat16>, SiluShort, Functor>;

template <class Body>
void with_functor(UnaryOp op, const Body& body) {
  switch (op) {
    case UnaryOp::kSilu: return body(Silu());
    case UnaryOp::kSigmoid: return body(Sigmoid());
    case UnaryOp::kRelu: return body(Relu());
    case UnaryOp::kTanh: return body(Tanh());
    case UnaryOp::kExp: return body(Exp());
    case UnaryOp::kLog: return body(Log());
    case UnaryOp::kSqrt: return body(Sqrt());
    case UnaryOp::kSquare: return body(Square());
    case UnaryOp::kNegate: return body(Negate());
    case UnaryOp::kAbs: return body(Abs());
    case UnaryOp::kSoftplus: return body(Softplus());
  }
}

void Unary(UnaryOp op, RowsView x, RowsView y) {
  with_functor(op, [&](auto functor) HWY_ATTR {
    with_element(y.t, [&](auto element) HWY_ATTR {
      using T = decltype(element);
      map_rows<T>(
          y, [](V v) HWY_ATTR { return For<decltype(functor), T>::f(v); }, x);
    });
  });
}

void UnaryBackward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) {
  with_functor(op, [&](auto functor) HWY_ATTR {
    with_element(dx.t, [&](auto element) HWY_ATTR {
      using T = decltype(element);
      using Function = For<decltype(functor), T>;
      if (accumulate) {
        map_rows<T>(
            dx, [](V v, V g, V old) HWY_ATTR { return hn::MulAdd(g, Function::df(v), old); }, x, dy, dx);
      } else {
        map_rows<T>(
            dx, [](V v, V g) HWY_ATTR { return hn::Mul(g, Function::df(v)); }, x, dy);
      }
    });
  });
}

// Max and Min return the second operand where the comparison is false, as the reference does.
struct Add {
  static V f(V a, V b) { return hn::Add(a, b); }
};
struct Subtract {
  static V f(V a, V b) { return hn::Sub(a, b); }
};
struct Multiply {
  static V f(V a, V b) { return hn::Mul(a, b); }
};
struct Divide {
  static V f(V a, V b) { return hn::Div(a, b); }
};
struct Maximum {
  static V f(V a, V b) { return hn::Max(a, b); }
};
struct Minimum {
  static V f(V a, V b) { return hn::Min(a, b); }
};

template <class Op, class T>
void binary_runs(const T* a, const T* b, T* y, const JointShape<3>& shape) {
  const auto step = shape.inner_stride();
  const bool stream = shape.outer() * shape.inner() * int64_t(sizeof(T)) >= kStreamBytes && a != y && b != y;
  const auto run = [&](const T* pa, const T* pb, T* py, size_t n) HWY_ATTR {
    if (step[0] == 0 && step[1] == 0) {
      map_run(n, py, stream, [va = splat(float(*pa)), vb = splat(float(*pb))]() HWY_ATTR { return Op::f(va, vb); });
    } else if (step[0] == 0) {
      map_run(
          n, py, stream, [va = splat(float(*pa))](V vb) HWY_ATTR { return Op::f(va, vb); }, pb);
    } else if (step[1] == 0) {
      map_run(
          n, py, stream, [vb = splat(float(*pb))](V va) HWY_ATTR { return Op::f(va, vb); }, pa);
    } else {
      map_run(
          n, py, stream, [](V va, V vb) HWY_ATTR { return Op::f(va, vb); }, pa, pb);
    }
  };
  const int64_t inner = shape.inner();
  if (shape.rank == 1) {
    parallel_for(inner, RowCut::kGrain, [&](int64_t begin, int64_t end) HWY_ATTR {
      run(a + begin * step[0], b + begin * step[1], y + begin, size_t(end - begin));
      if (stream) hwy::FlushStream();
    });
  } else {
    parallel_for(shape.outer(), std::max<int64_t>(1, RowCut::kGrain / inner), [&](int64_t begin, int64_t end) HWY_ATTR {
      for (int64_t i = begin; i < end; ++i) {
        const auto offset = shape.run(i);
        run(a + offset[0], b + offset[1], y + offset[2], size_t(inner));
      }
      if (stream) hwy::FlushStream();
    });
  }
}

bool Binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) {
  if (numel(y.shape) == 0) return true;
  const JointShape<3> shape({&a, &b, &y});
  const auto step = shape.inner_stride();
  if (shape.inner() > 1 && (step[2] != 1 || step[0] > 1 || step[1] > 1)) return false;
  with_element(y.t, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    const auto* pa = data<const T>(a);
    const auto* pb = data<const T>(b);
    auto* py = data<T>(y);
    switch (op) {
      case BinaryOp::kAdd: return binary_runs<Add>(pa, pb, py, shape);
      case BinaryOp::kSubtract: return binary_runs<Subtract>(pa, pb, py, shape);
      case BinaryOp::kMultiply: return binary_runs<Multiply>(pa, pb, py, shape);
      case BinaryOp::kDivide: return binary_runs<Divide>(pa, pb, py, shape);
      case BinaryOp::kMaximum: return binary_runs<Maximum>(pa, pb, py, shape);
      case BinaryOp::kMinimum: return binary_runs<Minimum>(pa, pb, py, shape);
    }
  });
  return true;
}

void AddScaled(RowsView x, double alpha, RowsView y) {
  with_element(y.t, [&](auto element) HWY_ATTR {
    map_rows<decltype(element)>(
        y, [k = splat(float(alpha))](V v, V old) HWY_ATTR { return hn::MulAdd(v, k, old); }, x, y);
  });
}

void Scale(RowsView x, double alpha, RowsView y) {
  with_element(y.t, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    const auto scaled = [k = splat(float(alpha))](V v) HWY_ATTR { return hn::Mul(v, k); };
    x.t == DType::kU8 ? map_rows<T, uint8_t>(y, scaled, x) : map_rows<T>(y, scaled, x);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(Unary);
HWY_EXPORT(UnaryBackward);
HWY_EXPORT(Binary);
HWY_EXPORT(AddScaled);
HWY_EXPORT(Scale);

void unary(UnaryOp op, RowsView x, RowsView y) { HWY_DYNAMIC_DISPATCH(Unary)(op, x, y); }
void unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(UnaryBackward)(op, x, dy, dx, accumulate);
}
bool binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) {
  return HWY_DYNAMIC_DISPATCH(Binary)(op, a, b, y);
}
void add_scaled(RowsView x, double alpha, RowsView y) { HWY_DYNAMIC_DISPATCH(AddScaled)(x, alpha, y); }
void scale(RowsView x, double alpha, RowsView y) { HWY_DYNAMIC_DISPATCH(Scale)(x, alpha, y); }

}  // namespace tessera::cpu
#endif
