// Elementary functions on vectors of f32, for the target that is being compiled, and the access to what is stored as f32 or bf16.
// NaN goes in, NaN comes out. Errors are measured in tests/cpu/pointwise_test.cpp.
#if defined(TESSERA_CPU_VEC_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_VEC_MATH_INL_H_
#undef TESSERA_CPU_VEC_MATH_INL_H_
#else
#define TESSERA_CPU_VEC_MATH_INL_H_
#endif

#include <cstring>
#include <limits>
#include <type_traits>

#include "tensor/cpu/highway.h"
#include "tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using V = hn::Vec<F32>;
using M = hn::Mask<F32>;
inline constexpr size_t kLanes = HWY_LANES(float);

HWY_INLINE V splat(float c) { return hn::Set(F32(), c); }
HWY_INLINE V load(const float* p) { return hn::LoadU(F32(), p); }
HWY_INLINE V load(M m, const float* p) { return hn::MaskedLoad(m, F32(), p); }
HWY_INLINE void store(V v, float* p) { hn::StoreU(v, F32(), p); }
HWY_INLINE void store(M m, V v, float* p) { hn::BlendedStore(v, m, F32(), p); }
HWY_INLINE M first(size_t n) { return hn::FirstN(F32(), n); }

// bf16 in memory is f32 in registers: kLanes values of 16 bits a vector. Stores round to nearest even, as BFloat16 does.
using U32 = hn::RebindToUnsigned<F32>;
using U16 = hn::Rebind<uint16_t, F32>;
using VU16 = hn::Vec<U16>;

HWY_INLINE V promoted(VU16 bits) { return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), bits))); }
// v rounded to bf16 in the upper 16 bits of each lane; what lies below is of no meaning. v must not be a signaling NaN; results of
// arithmetic are none.
HWY_INLINE hn::Vec<U32> rounded_above(V v) {
#if HWY_TARGET <= HWY_AVX3
  const __m512i bits = _mm512_castps_si512(v.raw);
  const __mmask16 number = _mm512_cmp_ps_mask(v.raw, v.raw, _CMP_ORD_Q);  // a NaN is cut, not rounded to infinity
  const __mmask16 odd = _mm512_mask_test_epi32_mask(number, bits, _mm512_set1_epi32(1 << 16));
  const __m512i sum = _mm512_mask_add_epi32(bits, number, bits, _mm512_set1_epi32(0x7fff));
  return hn::Vec<U32>{_mm512_mask_add_epi32(sum, odd, sum, _mm512_set1_epi32(1))};
#else
  const U32 du;
  const auto bits = hn::BitCast(du, v);
  const auto half = hn::Add(hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1)), hn::Set(du, 0x7fff));
  return hn::Add(bits, hn::IfThenZeroElse(hn::RebindMask(du, hn::IsNaN(v)), half));  // a NaN is cut, not rounded
#endif
}
HWY_INLINE VU16 rounded(V v) {
  const auto bits = hn::ShiftRight<16>(rounded_above(v));
#if HWY_TARGET <= HWY_AVX3
  return VU16{_mm512_cvtepi32_epi16(bits.raw)};
#else
  return hn::DemoteTo(U16(), hn::BitCast(hn::RebindToSigned<F32>(), bits));
#endif
}
// For what comes from memory: a signaling NaN becomes quiet.
HWY_INLINE V quieted(V v) {
  const V quiet = hn::Or(v, hn::BitCast(F32(), hn::Set(U32(), 0x00400000)));
  return hn::IfThenElse(hn::IsNaN(v), quiet, v);
}

HWY_INLINE V load(const BFloat16* p) { return promoted(hn::LoadU(U16(), reinterpret_cast<const uint16_t*>(p))); }
HWY_INLINE V load(const uint8_t* p) {
  return hn::ConvertTo(F32(), hn::PromoteTo(hn::RebindToSigned<F32>(), hn::LoadU(hn::Rebind<uint8_t, F32>(), p)));
}
HWY_INLINE void store(V v, BFloat16* p) { hn::StoreU(rounded(v), U16(), reinterpret_cast<uint16_t*>(p)); }

// The first n lanes, m their mask. Before AVX-512 there are no masked accesses of 8 and 16 bits: they go through a buffer.
HWY_INLINE V load(M m, size_t, const float* p) { return load(m, p); }
HWY_INLINE V load(M, size_t n, const uint8_t* p) {
  uint8_t buffer[kLanes] = {};
  std::memcpy(buffer, p, n);
  return load(buffer);
}
HWY_INLINE void store(M m, size_t, V v, float* p) { store(m, v, p); }
HWY_INLINE V load([[maybe_unused]] M m, [[maybe_unused]] size_t n, const BFloat16* p) {
#if HWY_TARGET <= HWY_AVX3
  return promoted(VU16{_mm256_maskz_loadu_epi16(m.raw, p)});
#else
  uint16_t buffer[kLanes] = {};
  std::memcpy(buffer, p, n * sizeof(BFloat16));
  return promoted(hn::LoadU(U16(), buffer));
#endif
}
HWY_INLINE void store([[maybe_unused]] M m, [[maybe_unused]] size_t n, V v, BFloat16* p) {
#if HWY_TARGET <= HWY_AVX3
  _mm256_mask_storeu_epi16(p, m.raw, rounded(v).raw);
#else
  uint16_t buffer[kLanes];
  hn::StoreU(rounded(v), U16(), buffer);
  std::memcpy(p, buffer, n * sizeof(BFloat16));
#endif
}

// Stores past the caches; p must be aligned to the stored vector, and the chunk must end with hwy::FlushStream().
HWY_INLINE void store_past_cache(V v, float* p) { hn::Stream(v, F32(), p); }
HWY_INLINE void store_past_cache(V v, BFloat16* p) { hn::Stream(rounded(v), U16(), reinterpret_cast<uint16_t*>(p)); }

// Two vectors of bf16 at a time, of elements at even and at odd places: they come apart and together without shuffles.
HWY_INLINE V load_even(const BFloat16* p) {
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::LoadU(U32(), reinterpret_cast<const uint32_t*>(p))));
}
HWY_INLINE V load_odd(const BFloat16* p) {
  return hn::BitCast(F32(), hn::And(hn::LoadU(U32(), reinterpret_cast<const uint32_t*>(p)), hn::Set(U32(), 0xffff0000)));
}
HWY_INLINE hn::Vec<U32> join_pair(V even, V odd) {
  return hn::OrAnd(hn::ShiftRight<16>(rounded_above(even)), rounded_above(odd), hn::Set(U32(), 0xffff0000));
}
HWY_INLINE void store_pair(V even, V odd, BFloat16* p) { hn::StoreU(join_pair(even, odd), U32(), reinterpret_cast<uint32_t*>(p)); }
HWY_INLINE void store_pair_past_cache(V even, V odd, BFloat16* p) {
  hn::Stream(join_pair(even, odd), U32(), reinterpret_cast<uint32_t*>(p));
}

// x86 returns the second operand when one is NaN, so these keep the NaN of x.
HWY_INLINE V at_least(float low, V x) { return hn::Max(splat(low), x); }
HWY_INLINE V at_most(float high, V x) { return hn::Min(splat(high), x); }

// p * 2^n for whole n in [-150, 128].
HWY_INLINE V scale_by_power(V p, V n) {
#if HWY_TARGET <= HWY_AVX3
  return V{_mm512_scalef_ps(p.raw, n.raw)};
#else
  // In two steps: 2^n itself may be out of range when the product is not.
  const hn::RebindToSigned<F32> di;
  const auto whole = hn::ConvertTo(di, n);
  const auto half = hn::ShiftRight<1>(whole);
  const auto power = [di](auto k) HWY_ATTR { return hn::BitCast(F32(), hn::ShiftLeft<23>(hn::Add(k, hn::Set(di, 127)))); };
  return hn::Mul(hn::Mul(p, power(half)), power(hn::Sub(whole, half)));
#endif
}

// p * 2^n for whole n in [-150, 0]. Where there is no instruction for it, n >= -127 and the lowest n gives zero: half of the work.
HWY_INLINE V scale_down(V p, V n) {
#if HWY_TARGET <= HWY_AVX3
  return scale_by_power(p, n);
#else
  const hn::RebindToSigned<F32> di;
  return hn::Mul(p, hn::BitCast(F32(), hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)))));
#endif
}

// 1/d for normal, not too large d (1/d normal as well); error about 1 ulp.
HWY_INLINE V reciprocal(V d) {
#if HWY_TARGET <= HWY_AVX3
  const V r{_mm512_rcp14_ps(d.raw)};
  return hn::Mul(r, hn::NegMulAdd(d, r, splat(2.0f)));
#else
  return hn::Div(splat(1.0f), d);
#endif
}

// e^x = p 2^n: x = n ln 2 + r, |r| <= ln 2 / 2, p a polynomial in r (Cephes expf). Error about 1 ulp.
struct PowerOfTwo {
  V p, n;
};
HWY_INLINE PowerOfTwo exp_parts(V x) {
  const V n = hn::Round(hn::Mul(x, splat(1.44269504f)));
  V r = hn::NegMulAdd(n, splat(0.693359375f), x);
  r = hn::NegMulAdd(n, splat(-2.12194440e-4f), r);
  V p = splat(1.9875691500e-4f);
  p = hn::MulAdd(p, r, splat(1.3981999507e-3f));
  p = hn::MulAdd(p, r, splat(8.3334519073e-3f));
  p = hn::MulAdd(p, r, splat(4.1665795894e-2f));
  p = hn::MulAdd(p, r, splat(1.6666665459e-1f));
  p = hn::MulAdd(p, r, splat(5.0000001201e-1f));
  return {hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), splat(1.0f)), n};
}

// e^x; overflows to infinity, underflows gradually to zero.
HWY_INLINE V exp(V x) {
  const PowerOfTwo e = exp_parts(at_least(-104.0f, at_most(89.0f, x)));
  return scale_by_power(e.p, e.n);
}

// e^-|x|; zero from 104 on, with AVX2 from 88 on.
HWY_INLINE V exp_minus_abs(V x) {
  constexpr float kZeroFrom = HWY_TARGET <= HWY_AVX3 ? -104.0f : -88.0f;
  const PowerOfTwo e = exp_parts(at_least(kZeroFrom, hn::Or(x, splat(-0.0f))));
  return scale_down(e.p, e.n);
}

// 1 / (1 + e^-x), as (x >= 0 ? 1 : e) / (1 + e) with e = e^-|x|: no step overflows and small values keep their accuracy.
HWY_INLINE V sigmoid(V x) {
  const V one = splat(1.0f);
  const V e = exp_minus_abs(x);
  return hn::Mul(hn::IfNegativeThenElse(x, e, one), reciprocal(hn::Add(one, e)));
}

// 2^r for r in [0, 1] (and a little beyond), for results of type T: to 1.5e-7 for f32, to 2.7e-6 for bf16.
template <class T>
HWY_INLINE V power_of_fraction(V r) {
  V p;
  if constexpr (std::is_same_v<T, float>) {
    p = hn::MulAdd(splat(1.877576675e-3f), r, splat(8.989340090e-3f));
    p = hn::MulAdd(p, r, splat(5.582631805e-2f));
    p = hn::MulAdd(p, r, splat(2.401536170e-1f));
    p = hn::MulAdd(p, r, splat(6.931530732e-1f));
    p = hn::MulAdd(p, r, splat(9.999999251e-1f));
  } else {
    p = hn::MulAdd(splat(1.353416778e-2f), r, splat(5.201146007e-2f));
    p = hn::MulAdd(p, r, splat(2.414427549e-1f));
    p = hn::MulAdd(p, r, splat(6.930038333e-1f));
    p = hn::MulAdd(p, r, splat(1.000002623f));
  }
  return p;
}

// 1 / (1 + p 2^floor(t)) for p in [1, 2]; zero from t = 126 on. `whole`: floor(t), or -126 below it.
HWY_INLINE V sigmoid_of_power(V p, V t, [[maybe_unused]] V whole) {
#if HWY_TARGET <= HWY_AVX3
  const V e{_mm512_scalef_ps(p.raw, t.raw)};
#else
  const hn::RebindToSigned<F32> di;
  const V e = hn::BitCast(F32(), hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::ConvertTo(di, whole))));
#endif
  return hn::IfThenZeroElse(hn::Ge(t, splat(126.0f)), reciprocal(hn::Add(splat(1.0f), e)));
}

constexpr float kPerLn2 = 1.44269504f, kPerLn2Rest = 1.92596303e-8f;  // 1 / ln 2

// 1 / (1 + e^-x) in two thirds of the work of sigmoid(): e^-x = 2^t in one step, t = -x / ln 2 rounded, so that its relative error
// grows by 8e-8 |x|, as much as an x that has itself been rounded brings along. For results of type T; zero from -87 on.
template <class T>
HWY_INLINE V sigmoid_of_rounded(V x) {
  const V t = hn::Mul(x, splat(-kPerLn2));
#if HWY_TARGET <= HWY_AVX3
  const V r{_mm512_reduce_ps(t.raw, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};  // t - floor(t), 0 for infinity
  return sigmoid_of_power(power_of_fraction<T>(r), t, t);
#else
  const V in_range = at_least(-126.0f, t);
  const V whole = hn::Floor(in_range);
  return sigmoid_of_power(power_of_fraction<T>(hn::Sub(in_range, whole)), t, whole);
#endif
}

// The same for any x, with an error of 3.1e-7: what rounding takes from t is kept in its fraction. From 87 on e^-x is left out.
HWY_INLINE V sigmoid_of_sum(V x) {
  const V in_range = at_most(87.0f, x);
  const V t = hn::Mul(in_range, splat(-kPerLn2));
  const V whole = hn::Floor(t);
  V r = hn::MulSub(in_range, splat(-kPerLn2), whole);
  r = hn::NegMulAdd(in_range, splat(kPerLn2Rest), r);
  return sigmoid_of_power(power_of_fraction<float>(r), t, whole);
}

// The sigmoid that is good enough for results of type T, whatever x is.
template <class T>
HWY_INLINE V sigmoid_for(V x) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return sigmoid_of_rounded<BFloat16>(x);
  } else {
    return sigmoid_of_sum(x);
  }
}

// ln x as fdlibm: x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt 2), s = f / (2 + f). Error <= 1 ulp; ln 0 = -inf, ln of a negative
// NaN.
HWY_INLINE V log(V x) {
  const hn::RebindToSigned<F32> di;
  const M tiny = hn::Lt(x, splat(1.17549435e-38f));
  const V scaled = hn::IfThenElse(tiny, hn::Mul(x, splat(8388608.0f)), x);
  const auto bits = hn::BitCast(di, scaled);
  const auto exponent = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3f3504f3)));
  const V k = hn::Add(hn::ConvertTo(F32(), exponent), hn::IfThenElseZero(tiny, splat(-23.0f)));
  const V f = hn::Sub(hn::BitCast(F32(), hn::Sub(bits, hn::ShiftLeft<23>(exponent))), splat(1.0f));
  const V s = hn::Div(f, hn::Add(f, splat(2.0f)));
  const V z = hn::Mul(s, s);
  V p = splat(0.24279078841f);
  p = hn::MulAdd(p, z, splat(0.28498786688f));
  p = hn::MulAdd(p, z, splat(0.40000972152f));
  p = hn::Mul(hn::MulAdd(p, z, splat(0.66666662693f)), z);
  const V half_square = hn::Mul(hn::Mul(f, f), splat(0.5f));
  const V low = hn::MulAdd(s, hn::Add(half_square, p), hn::Mul(k, splat(9.0580006145e-6f)));
  const V result = hn::MulAdd(k, splat(6.9313812256e-1f), hn::Sub(f, hn::Sub(half_square, low)));
  const V infinity = splat(std::numeric_limits<float>::infinity());
  const V at_zero = hn::IfThenElse(hn::Eq(x, hn::Zero(F32())), hn::Neg(infinity), splat(std::numeric_limits<float>::quiet_NaN()));
  // Infinity and NaN pass through; zero and negative numbers get their special values.
  const V normal = hn::IfThenElse(hn::Lt(x, infinity), result, x);
  return hn::IfThenElse(hn::Le(x, hn::Zero(F32())), at_zero, normal);
}

// ln(1 + e) for e in [0, 1] = 2 artanh(s), s = e / (2 + e) <= 1/3; full relative accuracy for small e.
HWY_INLINE V log1p_unit(V e) {
  const V s = hn::Mul(e, reciprocal(hn::Add(e, splat(2.0f))));
  const V z = hn::Mul(s, s);
  V p = splat(1.0f / 13);
  p = hn::MulAdd(p, z, splat(1.0f / 11));
  p = hn::MulAdd(p, z, splat(1.0f / 9));
  p = hn::MulAdd(p, z, splat(1.0f / 7));
  p = hn::MulAdd(p, z, splat(1.0f / 5));
  p = hn::MulAdd(p, z, splat(1.0f / 3));
  const V twice = hn::Add(s, s);
  return hn::MulAdd(hn::Mul(p, z), twice, twice);
}

// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|). Max returns its second operand, and so the NaN, in the first sum.
HWY_INLINE V softplus(V x) { return hn::Add(hn::Max(hn::Zero(F32()), x), log1p_unit(exp_minus_abs(x))); }

// tanh x: odd polynomial below 0.625 (Cephes tanhf), 1 - 2 / (e^2|x| + 1) above.
HWY_INLINE V tanh(V x) {
  const V a = hn::Abs(x);
  const V z = hn::Mul(x, x);
  V p = splat(-5.70498872745e-3f);
  p = hn::MulAdd(p, z, splat(2.06390887954e-2f));
  p = hn::MulAdd(p, z, splat(-5.37397155531e-2f));
  p = hn::MulAdd(p, z, splat(1.33314422036e-1f));
  p = hn::MulAdd(p, z, splat(-3.33332819422e-1f));
  const V small = hn::MulAdd(hn::Mul(p, z), x, x);
  const V e = exp(at_most(30.0f, hn::Add(a, a)));
  const V large = hn::CopySign(hn::NegMulAdd(splat(2.0f), reciprocal(hn::Add(e, splat(1.0f))), splat(1.0f)), x);
  return hn::IfThenElse(hn::Lt(a, splat(0.625f)), small, large);
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
