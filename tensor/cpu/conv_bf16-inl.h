// The arithmetic of the bf16 tiles, for conv_tile-inl.h: pairs of bf16 multiplied and added into f32 (VDPBF16PS), 512-bit vectors.
// No include guard: once, for the AVX-512 target, after highway.h.
//
// VDPBF16PS takes denormals as zeros and rounds each of the two additions to nearest even.
#include <immintrin.h>

#include <cstring>

#include "tensor/cpu/conv_tile.h"
#include "tensor/cpu/vec_math-inl.h"

#define TESSERA_TILE bf16_tile
#define TESSERA_TILE_BEGIN \
  HWY_BEFORE_NAMESPACE();  \
  HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512bf16") static_assert(true, "")
#define TESSERA_TILE_END HWY_POP_ATTRIBUTES HWY_AFTER_NAMESPACE()

TESSERA_TILE_BEGIN;
namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE {

using T = BFloat16;
using Factors = __m512bh;  // two for each of a vector of sums

HWY_INLINE Factors aligned_factors(const T* p) { return (__m512bh)_mm512_load_si512(p); }
HWY_INLINE Factors factors(const T* p) { return (__m512bh)_mm512_loadu_si512(p); }
HWY_INLINE Factors broadcast(const T* p) {
  int pair;
  std::memcpy(&pair, p, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(pair);
}
HWY_INLINE V multiply_add(Factors a, Factors b, V sum) { return V{_mm512_dpbf16_ps(sum.raw, a, b)}; }

HWY_INLINE __mmask16 first_of_16(int64_t count) { return count >= 16 ? __mmask16(0xffff) : __mmask16((1u << count) - 1); }
// Rounds to nearest even.
HWY_INLINE void store_first(V v, T* p, int64_t count) {
  _mm256_mask_storeu_epi16(p, first_of_16(count), (__m256i)_mm512_cvtneps_pbh(v.raw));
}
HWY_INLINE V load_first(const T* p, int64_t count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(first_of_16(count), p);
  return V{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
