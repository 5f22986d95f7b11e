// The bf16 tiles: AVX-512-BF16 only.
#include "tensor/cpu/conv_tile.h"
#include "tensor/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/conv_tile_bf16.cpp"
#include "tensor/cpu/highway.h"

#if HWY_TARGET == HWY_AVX3
// In this order:
#include "tensor/cpu/conv_bf16-inl.h"
#include "tensor/cpu/conv_tile-inl.h"
#include "tensor/cpu/conv_weight_tile-inl.h"

TESSERA_TILE_BEGIN;
namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE {

// Where the depth is adjacent in memory, pairs are moved as they lie, 16 columns by 16 pairs at a time so that lines are read and
// written whole.
void pack(BFloat16* dst, int64_t width, const BFloat16* src, int64_t column_step, int64_t k_step, int64_t columns, int64_t depth) {
  const BFloat16 zero(0.0f);
  const int64_t pairs = depth / 2;
  constexpr int64_t kSquare = 16;
  for (int64_t c0 = 0; c0 < width; c0 += kSquare) {
    const int64_t c_end = std::min(width, c0 + kSquare);
    const int64_t valid_end = std::clamp(columns, c0, c_end);
    for (int64_t k0 = 0; k0 < pairs; k0 += kSquare) {
      const int64_t k_end = std::min(pairs, k0 + kSquare);
      if (column_step == 1) {
        for (int64_t k = k0; k < k_end; ++k) {
          const BFloat16* from = src + 2 * k * k_step;
          BFloat16* to = dst + 2 * k * width;
          for (int64_t c = c0; c < valid_end; ++c) {
            to[2 * c] = from[c];
            to[2 * c + 1] = from[c + k_step];
          }
        }
      } else {
        for (int64_t c = c0; c < valid_end; ++c) {
          const BFloat16* from = src + c * column_step;
          for (int64_t k = k0; k < k_end; ++k) {
            dst[2 * (k * width + c)] = from[2 * k * k_step];
            dst[2 * (k * width + c) + 1] = from[(2 * k + 1) * k_step];
          }
        }
      }
      for (int64_t k = k0; k < k_end; ++k) std::fill(dst + 2 * (k * width + valid_end), dst + 2 * (k * width + c_end), zero);
    }
    if (depth % 2 == 0) continue;
    for (int64_t c = c0; c < c_end; ++c) {
      dst[2 * (pairs * width + c)] = c < columns ? src[c * column_step + (depth - 1) * k_step] : zero;
      dst[2 * (pairs * width + c) + 1] = zero;
    }
  }
}

HWY_INLINE __m512i joined(__m256i a, __m256i b) {
  alignas(64) static constexpr uint16_t kTurns[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                      8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  return _mm512_permutex2var_epi16(_mm512_castsi256_si512(a), _mm512_load_si512(kTurns), _mm512_castsi256_si512(b));
}

HWY_INLINE void interleave_inline(BFloat16* dst, const BFloat16* first, const BFloat16* second, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    _mm512_storeu_si512(dst + 2 * i, joined(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(first + i)),
                                            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second + i))));
  }
  if (i == count) return;
  const __mmask16 rest = first_of_16(count - i);
  _mm512_mask_storeu_epi32(dst + 2 * i, rest,
                           joined(_mm256_maskz_loadu_epi16(rest, first + i), _mm256_maskz_loadu_epi16(rest, second + i)));
}

void interleave(BFloat16* dst, const BFloat16* first, const BFloat16* second, int64_t count) {
  interleave_inline(dst, first, second, count);
}

void pair_pixels(BFloat16* dst, const BFloat16* first, const BFloat16* second, int64_t pitch, int64_t channels, int64_t pixels) {
  for (int64_t p = 0; p < pixels; ++p, dst += 2 * channels, first += pitch, second += pitch) {
    interleave_inline(dst, first, second, channels);
  }
}

TileKernels<BFloat16> kernels() { return {{kWidth, kMaxVectors}, run_row_job, run_weight_job, pack, interleave, pair_pixels}; }

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
#endif

#if HWY_ONCE
namespace tessera::cpu {

bool multiplies_bf16() {
  static const bool fast = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
  return fast && current_target() == "avx512";
}

template <>
TileKernels<BFloat16> tile_kernels<BFloat16>() {
  return N_AVX3::bf16_tile::kernels();
}

}  // namespace tessera::cpu
#endif
