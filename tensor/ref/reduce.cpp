#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {
// Visits x in row-major order and adds each element to the sum of its output position.
template <class T, class Sum>
void reduce_as(ReduceOp op, const StridedView& x, const StridedView& y) {
  Strides to_output = dense_strides(y.shape);
  for (int axis = 0; axis < y.shape.rank(); ++axis) {
    if (y.shape[axis] == 1) to_output[axis] = 0;
  }
  const Sum start = op == ReduceOp::kMax ? std::numeric_limits<Sum>::lowest() : Sum(0);
  const int64_t inputs = numel(x.shape);
  const int64_t outputs = numel(y.shape);
  std::vector<Sum> sums(size_t(outputs), start);
  for (int64_t i = 0; i < inputs; ++i) {
    const Sum value = Sum(ref::load(data<T>(x)[ref::offset_of(i, x.shape, x.strides)]));
    Sum& sum = sums[size_t(ref::offset_of(i, x.shape, to_output))];
    sum = op == ReduceOp::kMax ? std::max(sum, value) : sum + value;
  }
  for (int64_t i = 0; i < outputs; ++i) {
    const Sum result = op == ReduceOp::kMean ? sums[size_t(i)] / Sum(inputs / outputs) : sums[size_t(i)];
    T& out = data<T>(y)[ref::offset_of(i, y.shape, y.strides)];
    if constexpr (std::is_integral_v<T>) {
      out = T(result);
    } else {
      out = ref::rounded<T>(double(result));
    }
  }
}
}  // namespace

void RefBackend::reduce(ReduceOp op, const StridedView& x, const StridedView& y) {
  ref::for_any(x.t, [&]<class T>() { reduce_as<T, std::conditional_t<std::is_integral_v<T>, int64_t, double>>(op, x, y); });
}

void RefBackend::argmax(RowsView x, RowsView index) {
  ref::for_any(x.t, [&]<class T>() {
    for (int64_t r = 0; r < x.rows; ++r) {
      const T* values = ref::row<T>(x, r);
      int64_t best = 0;
      for (int64_t c = 1; c < x.cols; ++c) {
        if (ref::load(values[c]) > ref::load(values[best])) best = c;
      }
      *ref::row<int64_t>(index, r) = best;
    }
  });
}

void RefBackend::topk(RowsView x, RowsView values, RowsView indices) {
  std::vector<int64_t> order(size_t(x.cols));
  ref::for_any(x.t, [&]<class T>() {
    for (int64_t r = 0; r < x.rows; ++r) {
      const T* row = ref::row<T>(x, r);
      std::iota(order.begin(), order.end(), int64_t{0});
      std::partial_sort(order.begin(), order.begin() + values.cols, order.end(), [&](int64_t a, int64_t b) {
        const double left = ref::load(row[a]);
        const double right = ref::load(row[b]);
        return left != right ? left > right : a < b;
      });
      for (int64_t k = 0; k < values.cols; ++k) {
        ref::row<T>(values, r)[k] = row[order[size_t(k)]];
        ref::row<int64_t>(indices, r)[k] = order[size_t(k)];
      }
    }
  });
}

}  // namespace tessera
