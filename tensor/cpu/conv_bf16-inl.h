// The arithmetic of the bf16 tiles, for conv_tile-inl.h: pairs of bf16 multiplied and added into f32 (VDPBF16PS), 512-bit vectors.
// No include guard: once, for the AVX-512 target, after highway.h.
//
// VDPBF16PS takes denormals as zeros and rounds each of the two additions to nearest even.
#include <immintrin.h>

#include <algorithm>
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

// The pairs of 32 values, in order.
HWY_INLINE void store_pairs(__m512i first, __m512i second, T* to) {
  alignas(64) static constexpr uint16_t kLow[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                    8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  alignas(64) static constexpr uint16_t kHigh[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
                                                     24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(first, _mm512_load_si512(kLow), second));
  _mm512_storeu_si512(to + 32, _mm512_permutex2var_epi16(first, _mm512_load_si512(kHigh), second));
}

// What a tile of the weight gradient does for a later job beside its own work: makes the pairs of a column.
struct Aside {
  PairColumn of;
  __mmask32 valid;
  HWY_INLINE explicit Aside(const PairColumn& column)
      : of(column), valid(column.channels >= kLine<T> ? ~__mmask32(0) : (__mmask32(1) << column.channels) - 1) {}
  // How many pairs there are for the next `pixels` steps.
  HWY_INLINE int64_t steps(int64_t pixels) {
    const int64_t n = std::min(of.pairs, pixels);
    of.pairs -= n;
    return n;
  }
  // Into L2 only: fetches into L1 fill its few buffers for misses, and the loads beside them wait.
  HWY_INLINE void step(const T*, const T*) {
    __builtin_prefetch(of.first + of.ahead, 0, 2);
    __builtin_prefetch(of.second + of.ahead, 0, 2);
    store_pairs(_mm512_maskz_loadu_epi16(valid, of.first), _mm512_maskz_loadu_epi16(valid, of.second), of.to);
    of.first += of.step;
    of.second += of.step;
    of.to += of.to_step;
  }
  // The pairs that are left.
  HWY_INLINE void finish() {
    for (; of.pairs > 0; --of.pairs) step(nullptr, nullptr);
  }
};
void pair_column(const PairColumn& column) { Aside(column).finish(); }

// Deals them out to the tiles of a job.
class Asides {
 public:
  Asides(const WeightJob<T>& job, int64_t tiles) : columns_(job.columns_ahead), spread_{int64_t(columns_.size()), tiles} {}
  Aside next(int64_t, int64_t) {
    const int64_t i = spread_.next();
    return Aside(i < 0 ? PairColumn() : columns_[static_cast<size_t>(i)]);
  }
  // More columns than tiles.
  void finish() {
    for (const PairColumn& column : columns_.subspan(static_cast<size_t>(spread_.item))) pair_column(column);
  }

 private:
  std::span<const PairColumn> columns_;
  Spread spread_;
};

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
