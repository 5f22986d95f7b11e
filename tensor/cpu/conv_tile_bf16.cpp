// The bf16 tiles: AVX-512-BF16 only.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <optional>
#include <vector>

#include "tensor/cpu/amx.h"
#include "tensor/cpu/conv_scratch.h"
#include "tensor/cpu/conv_tile.h"
#include "tensor/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/conv_tile_bf16.cpp"
#include "tensor/cpu/highway.h"

#if HWY_TARGET == HWY_AVX3
// In this order:
#include "tensor/cpu/conv_bf16-inl.h"
//
#include "tensor/cpu/conv_pack-inl.h"
//
#include "tensor/cpu/conv_tile-inl.h"
//
#include "tensor/cpu/conv_weight_tile-inl.h"
//
#include "tensor/cpu/conv_amx-inl.h"

TESSERA_TILE_BEGIN;
namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE {

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

void pack(BFloat16* dst, int64_t width, const BFloat16* src, int64_t column_step, int64_t k_step, int64_t columns, int64_t depth) {
  const BFloat16 zero(0.0f);
  const int64_t pairs = depth / 2;
  int64_t k = 0, squares = 0;
  if (column_step == 1) {
    for (; k < pairs; ++k) {
      BFloat16* out = dst + 2 * k * width;
      interleave_inline(out, src + 2 * k * k_step, src + (2 * k + 1) * k_step, columns);
      std::fill(out + 2 * columns, out + 2 * width, zero);
    }
  } else if (k_step == 1 && column_step % 2 == 0) {  // pairs are moved as they lie
    squares =
        pack_transposed(reinterpret_cast<float*>(dst), width, reinterpret_cast<const float*>(src), column_step / 2, columns, pairs);
  }
  for (; k < whole_sums<BFloat16>(depth) / 2; ++k) {
    BFloat16* out = dst + 2 * k * width;
    for (int64_t c = k < squares ? columns / 4 * 4 : 0; c < columns; ++c) {
      const BFloat16* from = src + c * column_step + 2 * k * k_step;
      out[2 * c] = from[0];
      out[2 * c + 1] = k < pairs ? from[k_step] : zero;
    }
    std::fill(out + 2 * columns, out + 2 * width, zero);
  }
}

void interleave(BFloat16* dst, const BFloat16* first, const BFloat16* second, int64_t count) {
  interleave_inline(dst, first, second, count);
}

void pair_pixels(BFloat16* dst, const BFloat16* first, const BFloat16* second, int64_t pitch, int64_t channels, int64_t pixels) {
  for (int64_t p = 0; p < pixels; ++p, dst += 2 * channels, first += pitch, second += pitch) {
    interleave_inline(dst, first, second, channels);
  }
}

TileKernels<BFloat16> kernels(TileUnit unit) {
  if (unit == TileUnit::kVectors)
    return {{kWidth, kMaxVectors}, run_row_job, run_weight_job, pack, interleave, pair_pixels, pair_column, nullptr, nullptr};
  const bool real = unit == TileUnit::kAmx;
  const auto weight = real ? run_amx_weight_job<AmxTiles> : run_amx_weight_job<TwinTiles>;
  const auto weight_rows = real ? run_amx_weight_rows<AmxTiles> : run_amx_weight_rows<TwinTiles>;
  const auto band = real ? run_amx_band<AmxTiles> : run_amx_band<TwinTiles>;
  return {{kWidth, kMaxAmxVectors, kAmxJobPixels}, run_row_job, weight,      pack, interleave,
          pair_pixels,                             pair_column, band,        weight_rows};
}

// Floating-point operations done, with sums and factors in registers.
double tile_loop(int64_t rounds) {
  configure_tiles<AmxTiles>(kTileRows, 0);
  AmxTiles::zero<4>(), AmxTiles::zero<5>(), AmxTiles::zero<6>(), AmxTiles::zero<7>();
  for (int64_t r = 0; r < rounds; ++r) {
    AmxTiles::multiply_add<0, 4, 5>(), AmxTiles::multiply_add<1, 4, 7>();
    AmxTiles::multiply_add<2, 6, 5>(), AmxTiles::multiply_add<3, 6, 7>();
  }
  return 4.0 * 2 * kTileRows * 16 * kTileDepth * double(rounds);
}

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
#endif

#if HWY_ONCE
namespace tessera::cpu {

bool multiplies_bf16() {
  static const bool pairs = __builtin_cpu_supports("avx512bf16"), fast = pairs && __builtin_cpu_is("amd");
  return current_target() == "avx512" && (fast || (pairs && tile_unit() != TileUnit::kVectors));
}

template <>
TileKernels<BFloat16> tile_kernels<BFloat16>() {
  return N_AVX3::bf16_tile::kernels(tile_unit());
}

double amx_loop(int64_t rounds) { return N_AVX3::bf16_tile::tile_loop(rounds); }

namespace {

constexpr int kAskForPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA

std::vector<BFloat16> some_values(size_t count, int step) {
  std::vector<BFloat16> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = BFloat16(float(int(i) * step % 101 - 50) / 64);
  return values;
}

// Whether a small product and a small filter gradient by the tiles are those of the vectors, up to the order of their sums.
bool tiles_are_right() {
  constexpr int64_t kPixels = 37, kDepth = 80, kChannels = 32;
  const std::vector<BFloat16> a = some_values(kPixels * kDepth, 37), w = some_values(kDepth * kChannels, 53);
  const HostScratch<BFloat16> packed(kDepth * kChannels);
  std::copy(w.begin(), w.end(), packed.get());
  RowJob<BFloat16> row;
  row.a = a.data(), row.a_step = kDepth, row.run = kDepth, row.pixels = kPixels;
  row.w = packed.get(), row.vectors = 2, row.channels = kChannels, row.y_step = kChannels;
  constexpr int64_t kRows = 2, kPairs = 21, kOutputs = 40, kRun = 48;
  const std::vector<BFloat16> x = some_values(kRows * kPairs * kRun * 2, 29), d = some_values(kRows * kPairs * kOutputs * 2, 31);
  WeightJob<BFloat16> weight;
  weight.x = x.data(), weight.x_step = 2 * kRun, weight.x_row = kPairs * weight.x_step;
  weight.d = d.data(), weight.d_step = 2 * kOutputs, weight.d_row = kPairs * weight.d_step;
  weight.rows = kRows, weight.pixels = kPairs, weight.outputs = kOutputs, weight.run = kRun, weight.dw_step = kRun;
  std::vector<BFloat16> y[2] = {std::vector<BFloat16>(kPixels * kChannels), std::vector<BFloat16>(kPixels * kChannels)};
  std::vector<float> dw[2] = {std::vector<float>(kOutputs * kRun), std::vector<float>(kOutputs * kRun)};
  for (int i = 0; i < 2; ++i) {
    const TileKernels<BFloat16> k = N_AVX3::bf16_tile::kernels(i == 0 ? TileUnit::kVectors : TileUnit::kAmx);
    row.y = y[i].data();
    k.band ? k.band({{&row, 1}}) : k.row(row);
    weight.dw = dw[i].data();
    k.weight(weight);
  }
  const auto close = [](auto p, auto q) { return std::abs(float(p) - float(q)) <= 0.01f * std::abs(float(p)) + 0.01f; };
  return std::equal(y[0].begin(), y[0].end(), y[1].begin(), close) && std::equal(dw[0].begin(), dw[0].end(), dw[1].begin(), close);
}

std::optional<TileUnit> forced_unit;

}  // namespace

bool has_amx() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kTiles = 1u << 24, kBf16 = 1u << 22;
    if (!__builtin_cpu_supports("avx512bf16") || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTiles) == 0 || (d & kBf16) == 0)
      return false;
    return syscall(SYS_arch_prctl, kAskForPermission, kTileData) == 0;
  }();
  return has;
}

TileUnit tile_unit() {
  if (forced_unit) return *forced_unit;
  static const TileUnit chosen = [] {
    if (!has_amx()) return TileUnit::kVectors;
    if (tiles_are_right()) return TileUnit::kAmx;
    std::fprintf(stderr, "tessera: AMX does not give the products of AVX-512 here; it is not used\n");
    return TileUnit::kVectors;
  }();
  return chosen;
}

void force_tile_unit(TileUnit unit) { forced_unit = unit; }

}  // namespace tessera::cpu
#endif
