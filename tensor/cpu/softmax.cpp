// Softmax and log-softmax of rows: maximum, sum of exponentials, result, while the row is in the L1 cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/softmax.cpp"
#include <cmath>
#include <vector>

#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

// The exponentials of a row, in f32: the result's own place, or a buffer where that is too narrow.
HWY_INLINE float* room_for(float* y, size_t) { return y; }
HWY_INLINE float* room_for(BFloat16*, size_t n) {
  thread_local std::vector<float> buffer;
  buffer.resize(n);
  return buffer.data();
}

template <class T>
void softmax_row(const T* x, T* y, size_t n, bool log_form) {
  if (log_form) {
    const RowSum s = exp_row(x, nullptr, n);
    const V shift = splat(s.largest), log_of_sum = splat(std::log(s.sum));
    map_run(
        n, y, false, [=](V v) HWY_ATTR { return hn::Sub(hn::Sub(v, shift), log_of_sum); }, x);
  } else {
    float* e = room_for(y, n);
    const V factor = splat(1.0f / exp_row(x, e, n).sum);
    map_run(
        n, y, false, [=](V v) HWY_ATTR { return hn::Mul(v, factor); }, static_cast<const float*>(e));
  }
}

template <class T>
void softmax_row_backward(const T* y, const T* dy, T* dx, size_t n, bool log_form) {
  if (log_form) {
    const V sum = splat(float(sum_run(
        n, [](V g) HWY_ATTR { return g; }, dy)));
    map_run(
        n, dx, false, [=](V v, V g) HWY_ATTR { return hn::NegMulAdd(exp(v), sum, g); }, y, dy);
  } else {
    const V sum = splat(float(sum_run(
        n, [](V v, V g) HWY_ATTR { return hn::Mul(v, g); }, y, dy)));
    map_run(
        n, dx, false, [=](V v, V g) HWY_ATTR { return hn::Mul(v, hn::Sub(g, sum)); }, y, dy);
  }
}

int64_t rows_per_chunk(int64_t cols) { return std::max<int64_t>(1, RowCut::kGrain / 4 / std::max<int64_t>(1, cols)); }

void Softmax(RowsView x, RowsView y, bool log_form) {
  if (x.cols == 0) return;
  with_element(x.t, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    parallel_for(x.rows, rows_per_chunk(x.cols), [&](int64_t begin, int64_t end) HWY_ATTR {
      for (int64_t r = begin; r < end; ++r) softmax_row<T>(at<T>(x, r), at<T>(y, r), size_t(x.cols), log_form);
    });
  });
}

void SoftmaxBackward(RowsView y, RowsView dy, RowsView dx, bool log_form) {
  with_element(y.t, [&](auto element) HWY_ATTR {
    using T = decltype(element);
    parallel_for(y.rows, rows_per_chunk(y.cols), [&](int64_t begin, int64_t end) HWY_ATTR {
      for (int64_t r = begin; r < end; ++r) {
        softmax_row_backward<T>(at<T>(y, r), at<T>(dy, r), at<T>(dx, r), size_t(y.cols), log_form);
      }
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(Softmax);
HWY_EXPORT(SoftmaxBackward);

void softmax(RowsView x, RowsView y, bool log) { HWY_DYNAMIC_DISPATCH(Softmax)(x, y, log); }
void softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) { HWY_DYNAMIC_DISPATCH(SoftmaxBackward)(y, dy, dx, log); }

}  // namespace tessera::cpu
#endif
