#include "tensor/ops/with_functor.h"
#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {
// In the type itself for integers, so that 64 bits stay exact. max and min return b where the comparison is false (NaN in a).
template <class T>
T apply(BinaryOp op, T a, T b) {
  switch (op) {
    case BinaryOp::kAdd: return T(a + b);
    case BinaryOp::kSubtract: return T(a - b);
    case BinaryOp::kMultiply: return T(a * b);
    case BinaryOp::kDivide: return T(a / b);
    case BinaryOp::kMaximum: return a > b ? a : b;
    case BinaryOp::kMinimum: return a < b ? a : b;
  }
  return a;
}
}  // namespace

void RefBackend::unary(UnaryOp op, RowsView x, RowsView y) {
  ref::for_floating(x.t, [&]<class T>() {
    with_functor(op, [&](auto functor) {
      for (int64_t r = 0; r < x.rows; ++r) {
        for (int64_t c = 0; c < x.cols; ++c) {
          ref::row<T>(y, r)[c] = ref::rounded<T>(functor.f(ref::load(ref::row<T>(x, r)[c])));
        }
      }
    });
  });
}

void RefBackend::unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) {
  ref::for_floating(x.t, [&]<class T>() {
    with_functor(op, [&](auto functor) {
      for (int64_t r = 0; r < x.rows; ++r) {
        for (int64_t c = 0; c < x.cols; ++c) {
          const double gradient = ref::load(ref::row<T>(dy, r)[c]) * functor.df(ref::load(ref::row<T>(x, r)[c]));
          ref::put(ref::row<T>(dx, r)[c], gradient, accumulate);
        }
      }
    });
  });
}

void RefBackend::binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) {
  ref::for_any(y.t, [&]<class T>() {
    const int64_t n = numel(y.shape);
    for (int64_t i = 0; i < n; ++i) {
      const T left = data<T>(a)[ref::offset_of(i, a.shape, a.strides)];
      const T right = data<T>(b)[ref::offset_of(i, b.shape, b.strides)];
      T& out = data<T>(y)[ref::offset_of(i, y.shape, y.strides)];
      if constexpr (std::is_integral_v<T>) {
        out = apply(op, left, right);
      } else {
        out = ref::rounded<T>(apply(op, ref::load(left), ref::load(right)));
      }
    }
  });
}

void RefBackend::add_scaled(RowsView x, double alpha, RowsView y) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c < x.cols; ++c)
        ref::put(ref::row<T>(y, r)[c], alpha * ref::load(ref::row<T>(x, r)[c]), /*accumulate=*/true);
    }
  });
}

void RefBackend::scale(RowsView x, double alpha, RowsView y) {
  ref::for_floating(y.t, [&]<class T>() {
    const auto each = [&](auto value) {
      for (int64_t r = 0; r < x.rows; ++r) {
        for (int64_t c = 0; c < x.cols; ++c) ref::row<T>(y, r)[c] = ref::rounded<T>(alpha * value(r, c));
      }
    };
    if (x.t == DType::kU8) return each([&](int64_t r, int64_t c) { return double(ref::row<uint8_t>(x, r)[c]); });
    each([&](int64_t r, int64_t c) { return double(ref::load(ref::row<T>(x, r)[c])); });
  });
}

}  // namespace tessera
