// The sum of exponentials of a row, shared by softmax and the distribution focal loss.
#if defined(TESSERA_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_SOFTMAX_INL_H_
#undef TESSERA_CPU_SOFTMAX_INL_H_
#else
#define TESSERA_CPU_SOFTMAX_INL_H_
#endif

#include <cmath>
#include <limits>

#include "tensor/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

struct LogSum {
  float largest, sum, log_of_sum;  // sum of exp(x - largest); NaN in the row gives NaN
};

HWY_INLINE LogSum log_sum(const float* x, size_t n) {
  const V lowest = splat(-std::numeric_limits<float>::infinity());
  V top = lowest;
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) top = hn::Max(load(x + i), top);
  if (i < n) {
    const M m = first(n - i);
    top = hn::Max(hn::IfThenElse(m, load(m, x + i), lowest), top);
  }
  const float largest = hn::GetLane(hn::MaxOfLanes(F32(), top));
  const V shift = splat(largest);
  const auto sum = float(sum_run(
      n, [=](V v) HWY_ATTR { return exp(hn::Sub(v, shift)); }, x));
  return {largest, sum, std::log(sum)};
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
