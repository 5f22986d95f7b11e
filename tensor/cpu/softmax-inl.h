// Exponentials of a row and their sum, shared by softmax and the distribution focal loss.
#if defined(TESSERA_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_SOFTMAX_INL_H_
#undef TESSERA_CPU_SOFTMAX_INL_H_
#else
#define TESSERA_CPU_SOFTMAX_INL_H_
#endif

#include <limits>

#include "tensor/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

struct RowSum {
  float largest, sum;  // sum of exp(x - largest); NaN in the row gives NaN
};

// y = exp(x - largest) unless y is null; y may be x.
template <class T>
HWY_INLINE RowSum exp_row(const T* x, float* y, size_t n) {
  const V lowest = splat(-std::numeric_limits<float>::infinity());
  V top = lowest;
  for_each_vector(n, [&](size_t i, auto part) HWY_ATTR { top = hn::Max(part.or_else(part.get(x + i), lowest), top); });
  const V shift = hn::MaxOfLanes(F32(), top);
  V sum = hn::Zero(F32());
  for_each_vector(n, [&](size_t i, auto part) HWY_ATTR {
    const V e = exp(hn::Sub(part.get(x + i), shift));
    sum = hn::Add(sum, part.only(e));
    if (y != nullptr) part.put(e, y + i);
  });
  return {hn::GetLane(shift), hn::GetLane(hn::SumOfLanes(F32(), sum))};
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
