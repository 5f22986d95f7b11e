// Binary cross-entropy of a logit, shared by the losses.
#if defined(TESSERA_CPU_CROSS_ENTROPY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_CROSS_ENTROPY_INL_H_
#undef TESSERA_CPU_CROSS_ENTROPY_INL_H_
#else
#define TESSERA_CPU_CROSS_ENTROPY_INL_H_
#endif

#include "tensor/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

// max(x, 0) - x t + ln(1 + e^-|x|).
HWY_INLINE V cross_entropy(V x, V target) {
  return hn::Add(hn::NegMulAdd(x, target, at_least(0.0f, x)), log1p_unit(exp_minus_abs(x)));
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
