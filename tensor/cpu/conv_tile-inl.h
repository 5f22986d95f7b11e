// Compiled once per CPU target: the register tile of the forward kernel, its epilogue and the packing of weights.
//
// Note [Tile]: MR pixels x NV vectors of output channels stay in registers while the reduction runs; each step loads NV vectors of
// weights and broadcasts one value per pixel. Rows are cut into tiles of nearly equal height (20 = 10 + 10, not 14 + 6), and
// every height up to the largest is its own instance, so a tail never runs at the speed of a 1-pixel tile.
#if defined(TESSERA_CONV_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CONV_TILE_INL
#undef TESSERA_CONV_TILE_INL
#else
#define TESSERA_CONV_TILE_INL
#endif

#include <algorithm>
#include <array>
#include <utility>

#include "tensor/cpu/conv_tile.h"
#include "tensor/cpu/vec_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

constexpr int64_t kWidth = kLanes;

// AVX-512 has 32 vector registers, AVX2 16: accumulators + weights + one broadcast must fit.
constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3;
constexpr int kMaxVectors = kManyRegisters ? 5 : 3;
constexpr int max_rows(int vectors) {
  constexpr int many[] = {0, 20, 14, 8, 6, 5};
  constexpr int few[] = {0, 12, 6, 4};
  return kManyRegisters ? many[vectors] : few[std::min(vectors, 3)];
}

HWY_INLINE void store_first(V v, float* p, int64_t count) {
  if (count >= kWidth) {
    store(v, p);
  } else {
    store(first(static_cast<size_t>(count)), v, p);
  }
}

HWY_INLINE V load_first(const float* p, int64_t count) {
  return count >= kWidth ? load(p) : load(first(static_cast<size_t>(count)), p);
}

// Activation and residual of a tile that was just stored and is still in L1: keeps the exponential out of the unrolled tiles.
HWY_NOINLINE void finish_tile(const RowJob& j, int64_t first, int64_t count) {
  for (int64_t p = first; p < first + count; ++p) {
    float* y = j.y + p * j.y_step;
    const float* residual = j.residual ? j.residual + p * j.residual_step : nullptr;
    for (int64_t c = 0; c < j.channels; c += kWidth) {
      const int64_t left = j.channels - c;
      V v = load_first(y + c, left);
      if (j.silu) v = hn::Mul(v, sigmoid(v));
      if (residual) v = hn::Add(v, load_first(residual + c, left));
      store_first(v, y + c, left);
    }
  }
}

constexpr int64_t kLineFloats = 16;

// Share `part` of `parts` of what `ahead` names.
HWY_INLINE void fetch(const Ahead& ahead, int64_t part, int64_t parts) {
  const int64_t end = (part + 1) * ahead.pixels / parts;
  for (int64_t p = part * ahead.pixels / parts; p < end; ++p) {
    for (int64_t c = 0; c < ahead.channels; c += kLineFloats) __builtin_prefetch(ahead.p + p * ahead.pitch + c, 0, 2);
  }
}

// Note [Addresses]: the pixels of a tile are a run-time stride apart, which asks for more address registers than x86 has: compilers
// keep one pointer per pixel and spill them in the inner loop. Five pixels share a base pointer here: +0, +step, +2 step, +4 step
// are addressing modes and +3 step costs one register for all bases. opaque() keeps the compiler from undoing this.
constexpr int kRowsOfBase = 5;
template <class T>
HWY_INLINE void opaque(T& value) {
  asm("" : "+r"(value));
}

template <int MR, int NV>
HWY_NOINLINE void tile(const RowJob& j, int64_t first) {
  constexpr int kBases = (MR + kRowsOfBase - 1) / kRowsOfBase;
  const F32 d;
  float* y = j.y + first * j.y_step;
#pragma GCC unroll 1
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 32
    for (int v = 0; v < NV; v += kLineFloats / kWidth) __builtin_prefetch(y + m * j.y_step + v * kWidth, 1);
  }
  V c[MR][NV];
#pragma GCC unroll 32
  for (int v = 0; v < NV; ++v) {
    const V start = j.bias ? hn::LoadU(d, j.bias + v * kWidth) : hn::Zero(d);
#pragma GCC unroll 32
    for (int m = 0; m < MR; ++m) c[m][v] = start;
  }
  const float* HWY_RESTRICT w = j.w;
  const float* row = j.a + first * j.a_step;
  const int64_t step = j.a_step;
  int64_t step3 = 3 * step;
  opaque(step3);
  for (int64_t r = 0; r < j.kernel_rows; ++r, row += j.a_row) {
    const float* tap = row;
    for (int64_t t = 0; t < j.taps; ++t, tap += j.a_tap) {
      // See Note [Addresses].
      const float* a[kBases];
#pragma GCC unroll 32
      for (int g = 0; g < kBases; ++g) a[g] = tap + kRowsOfBase * g * step;
      for (int64_t k = 0; k < j.run;) {
        int64_t end = j.run;
        if (j.next_tile_ahead) {
          end = std::min(j.run, k + kLineFloats);
          const float* next = tap + MR * step + k;
#pragma GCC unroll 1
          for (int m = 0; m < MR; ++m, next += step) __builtin_prefetch(next);
        }
        for (; k < end; ++k, w += NV * kWidth) {
          V b[NV];
#pragma GCC unroll 32
          for (int v = 0; v < NV; ++v) b[v] = hn::Load(d, w + v * kWidth);
#pragma GCC unroll 32
          for (int m = 0; m < MR; ++m) {
            const float* p = a[m / kRowsOfBase];
            const int of = m % kRowsOfBase;
            const V x = hn::Set(d, of == 3 ? p[step3] : p[of * step]);
#pragma GCC unroll 32
            for (int v = 0; v < NV; ++v) c[m][v] = hn::MulAdd(x, b[v], c[m][v]);
          }
#pragma GCC unroll 32
          for (int g = 0; g < kBases; ++g) opaque(++a[g]);
        }
      }
    }
  }
  const int64_t last = j.channels - (NV - 1) * kWidth;
#pragma GCC unroll 32
  for (int m = 0; m < MR; ++m, y += j.y_step) {
#pragma GCC unroll 32
    for (int v = 0; v < NV; ++v) {
      const int64_t count = v + 1 < NV ? kWidth : last;
      if (j.accumulate) c[m][v] = hn::Add(c[m][v], load_first(y + v * kWidth, count));
      store_first(c[m][v], y + v * kWidth, count);
    }
  }
}

template <int NV>
void run_row(const RowJob& j) {
  using Tile = void (*)(const RowJob&, int64_t);
  static constexpr auto kTiles = []<int... M>(std::integer_sequence<int, M...>) {
    return std::array<Tile, sizeof...(M)>{&tile<M + 1, NV>...};
  }
  (std::make_integer_sequence<int, max_rows(NV)>());
  const int64_t tiles = (j.pixels + max_rows(NV) - 1) / max_rows(NV);
  if (tiles == 0) return;
  const int64_t low = j.pixels / tiles;
  const int64_t short_tiles = tiles - j.pixels % tiles;
  for (int64_t t = 0, p = 0; t < tiles; ++t) {
    const int64_t rows = low + (t >= short_tiles);
    fetch(j.ahead, t, tiles);
    kTiles[static_cast<size_t>(rows - 1)](j, p);
    if (j.silu || j.residual) finish_tile(j, p, rows);
    p += rows;
  }
}

void run_row_job(const RowJob& j) {
  switch (j.vectors) {
    case 1: return run_row<1>(j);
    case 2: return run_row<2>(j);
    case 3: return run_row<3>(j);
#if HWY_TARGET <= HWY_AVX3
    case 4: return run_row<4>(j);
    case 5: return run_row<5>(j);
#endif
    default: return;
  }
}

// dst[i * width + c] = src[c * step + i] for i, c < 4.
HWY_INLINE void transpose4(float* dst, int64_t width, const float* src, int64_t step) {
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pairs;
  const auto a0 = hn::LoadU(d, src), a1 = hn::LoadU(d, src + step), a2 = hn::LoadU(d, src + 2 * step),
             a3 = hn::LoadU(d, src + 3 * step);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, a0, a1)),
             high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, a0, a1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, a2, a3)),
             high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, a2, a3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, dst);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, dst + width);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, dst + 2 * width);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, dst + 3 * width);
}

void pack(float* dst, int64_t width, const float* src, int64_t column_step, int64_t k_step, int64_t columns, int64_t depth) {
  if (column_step == 1) {
    for (int64_t k = 0; k < depth; ++k, dst += width, src += k_step) {
      std::copy_n(src, columns, dst);
      std::fill(dst + columns, dst + width, 0.0f);
    }
    return;
  }
  const int64_t depth4 = k_step == 1 ? depth / 4 * 4 : 0;  // in squares of 4
  const int64_t columns4 = columns / 4 * 4;
  for (int64_t line = 0; line < depth4; line += kLineFloats) {
    for (int64_t c = 0; c < columns4; c += 4) {
      const float* from = src + c * column_step;
      for (int64_t i = 0; i < 4; ++i) __builtin_prefetch(from + i * column_step + line + 2 * kLineFloats);
      for (int64_t k = line; k < std::min(depth4, line + kLineFloats); k += 4)
        transpose4(dst + k * width + c, width, from + k, column_step);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    float* out = dst + k * width;
    for (int64_t c = k < depth4 ? columns4 : 0; c < columns; ++c) out[c] = src[c * column_step + k * k_step];
    std::fill(out + columns, out + width, 0.0f);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
