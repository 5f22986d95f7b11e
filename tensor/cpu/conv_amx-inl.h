// The rows and the filter gradients of the bf16 kernels on the tiles of AMX, for conv_tile_bf16.cpp. Pixels and packed weights lie
// as for the vectors: 32 channels of 16 pixels are a tile of A, and the pairs that the weights are packed in (Note [Pairs]) are
// what the unit wants of B.
//
// Note [Blocks of tiles]: tiles 0 to 3 hold sums of kDown x NV tiles, 4 x 1, 2 x 2 or 1 x 3. A product takes as long as its rows of
// A, a load half of that, so two loads for each product can hide behind it. A run that is no multiple of 32 ends with a product of
// its own shape: tiles 6 and 7 have it; otherwise they are a second pair of factors.
//
// Not run on a CPU with AMX yet: blocks and turns follow what was measured of a study on one, this code is tested on TwinTiles.
//
// No include guard: once, after conv_bf16-inl.h.
#include "tensor/cpu/amx_tiles.h"

TESSERA_TILE_BEGIN;
namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE {

constexpr int kTileRows = 16;
constexpr int64_t kTileDepth = 32;                 // channels of a full tile of A
constexpr int kMaxAmxVectors = 3;                  // of a group of output channels
constexpr int64_t kAmxJobPixels = 512;             // 16 products for each tile of sums that is stored
constexpr int64_t kSumBytes = 16 * sizeof(float);  // a row of sums

template <class Tiles>
void configure_tiles(int rows, int64_t tail) {
  thread_local TileConfig now;
  TileConfig c;
  const auto set = [&](int tile, int64_t r, int64_t bytes) { c.rows[tile] = uint8_t(r), c.row_bytes[tile] = uint16_t(bytes); };
  const int64_t end = tail > 0 ? tail : kTileDepth;
  for (int t = 0; t < 4; ++t) set(t, rows, kSumBytes);
  set(4, rows, kTileDepth * 2);
  set(5, kTileDepth / 2, kSumBytes);
  set(6, rows, end * 2);
  set(7, end / 2, kSumBytes);
  if (c == now) return;
  now = c;
  Tiles::configure(now);
}

// One step of k: each of kDown tiles of A, `down` elements apart, meets each of NV tiles of B, `across` apart, in sums kRow * NV +
// kColumn. kTurns: factors take turns in two registers each, and those of B stay for all rows; else each has one, 4 and 5 or, in
// the shape of the tail, 6 and 7.
template <class Tiles, int kDown, int NV, bool kTurns, bool kOfTail>
HWY_INLINE void tile_step(const T* a, int64_t a_bytes, int64_t down, const T* b, int64_t b_bytes, int64_t across) {
  const auto row = [&]<int kRow>() {
    if constexpr (kRow < kDown) {
      constexpr int kA = kOfTail || (kTurns && kRow % 2 == 1) ? 6 : 4;
      Tiles::template load<kA>(a + kRow * down, a_bytes);
      const auto column = [&]<int kColumn>() {
        if constexpr (kColumn < NV) {
          constexpr int kB = kOfTail || (kTurns && kColumn % 2 == 1) ? 7 : 5;
          if constexpr (kRow == 0 || (NV > 1 && !kTurns)) Tiles::template load<kB>(b + kColumn * across, b_bytes);
          Tiles::template multiply_add<kRow * NV + kColumn, kA, kB>();
        }
      };
      column.template operator()<0>();
      column.template operator()<1>();
      column.template operator()<2>();
    }
  };
  row.template operator()<0>();
  row.template operator()<1>();
  row.template operator()<2>();
  row.template operator()<3>();
}

template <class Tiles, int kCount>
HWY_INLINE void zero_sums() {
  Tiles::template zero<0>();
  if constexpr (kCount > 1) Tiles::template zero<1>();
  if constexpr (kCount > 2) Tiles::template zero<2>();
  if constexpr (kCount > 3) Tiles::template zero<3>();
}

// Sums of kDown x NV tiles as rows of f32, `pitch` of them from row to row.
template <class Tiles, int kDown, int NV>
HWY_INLINE void store_sums(float* to, int64_t pitch) {
  const auto store = [&]<int kTile>() {
    if constexpr (kTile < kDown * NV)
      Tiles::template store<kTile>(to + kTile / NV * kTileRows * pitch + kTile % NV * kWidth, pitch * int64_t(sizeof(float)));
  };
  store.template operator()<0>();
  store.template operator()<1>();
  store.template operator()<2>();
  store.template operator()<3>();
}

// Sums of kDown tiles of pixels by NV of channels over the whole of a job, to `sums`: kDown * 16 rows of NV * 16.
template <class Tiles, int kDown, int NV>
void multiply_tiles(const RowJob<T>& j, const T* a, float* sums) {
  static_assert(kDown * NV <= 4);
  zero_sums<Tiles, kDown * NV>();
  const int64_t a_bytes = j.a_step * int64_t(sizeof(T)), b_bytes = NV * kSumBytes;
  const int64_t down = kTileRows * j.a_step;  // elements from a tile of pixels to the next
  constexpr int64_t kAcross = 2 * kWidth;
  const T* w = j.w;
  const int64_t whole = j.run / kTileDepth * kTileDepth, tail = j.run - whole;
  for (int64_t r = 0; r < j.kernel_rows; ++r) {
    for (int64_t t = 0; t < j.taps; ++t) {
      const T* p = a + r * j.a_row + t * j.a_tap;
      for (int64_t k = 0; k < whole; k += kTileDepth, p += kTileDepth, w += kTileDepth * NV * kWidth) {
        if (tail == 0) {
          tile_step<Tiles, kDown, NV, true, false>(p, a_bytes, down, w, b_bytes, kAcross);
        } else {
          tile_step<Tiles, kDown, NV, false, false>(p, a_bytes, down, w, b_bytes, kAcross);
        }
      }
      if (tail > 0) {
        tile_step<Tiles, kDown, NV, false, true>(p, a_bytes, down, w, b_bytes, kAcross);
        w += tail * NV * kWidth;
      }
    }
  }
  store_sums<Tiles, kDown, NV>(sums, NV * kWidth);
}

// Bias, what y holds, activation and residual of the pixels [first, first + count), whose sums are rows of `sums`.
template <int NV>
void finish_tile_rows(const RowJob<T>& j, int64_t first, int64_t count, const float* sums) {
  for (int64_t p = first; p < first + count; ++p, sums += NV * kWidth) {
    T* y = j.y + p * j.y_step;
    const T* residual = j.residual ? j.residual + p * j.residual_step : nullptr;
    for (int64_t c = 0; c < j.channels; c += kWidth) {
      const int64_t left = j.channels - c;
      V v = load(sums + c);
      if (j.bias) v = hn::Add(v, load(j.bias + c));
      if (j.accumulate) v = hn::Add(v, load_first(y + c, left));
      if (j.silu) v = hn::Mul(v, sigmoid_for<T>(v));
      if (residual) v = hn::Add(v, load_first(residual + c, left));
      store_first(v, y + c, left);
    }
  }
}

// Pixels beyond the last are never read: the last tile of a row starts earlier and repeats some, which are not stored twice; a row
// shorter than a tile has tiles of its own height.
template <class Tiles, int NV>
void run_amx_row(const RowJob<T>& j) {
  constexpr int kDown = NV == 1 ? 4 : NV == 2 ? 2 : 1;
  alignas(64) float sums[kDown * kTileRows * NV * 16];
  if (j.pixels == 0) return;
  const int rows = int(std::min<int64_t>(j.pixels, kTileRows));
  configure_tiles<Tiles>(rows, j.run % kTileDepth);
  int64_t p = 0;
  const int64_t tiles = (j.pixels + kTileRows - 1) / kTileRows;
  for (; p + kDown * kTileRows <= j.pixels; p += kDown * kTileRows) {
    j.ahead.part(p / kTileRows, tiles).fetch();
    multiply_tiles<Tiles, kDown, NV>(j, j.a + p * j.a_step, sums);
    finish_tile_rows<NV>(j, p, kDown * kTileRows, sums);
  }
  for (; p < j.pixels; p += kTileRows) {
    const int64_t start = std::min(p, j.pixels - rows);
    j.ahead.part(p / kTileRows, tiles).fetch();
    multiply_tiles<Tiles, 1, NV>(j, j.a + start * j.a_step, sums);
    finish_tile_rows<NV>(j, p, std::min<int64_t>(kTileRows, j.pixels - p), sums + (p - start) * NV * kWidth);
  }
}

template <class Tiles>
void run_amx_row_job(const RowJob<T>& j) {
  switch (j.vectors) {
    case 1: return run_amx_row<Tiles, 1>(j);
    case 2: return run_amx_row<Tiles, 2>(j);
    case 3: return run_amx_row<Tiles, 3>(j);
    default: return;
  }
}

// Note [Filter gradients on tiles]: dw = d^T x over the pixels of a job. Pixels lie in pairs (Note [Pairs]), which are the rows
// that the unit wants of B; A wants 16 channels of d with 16 pairs in a row, so d is transposed first, once for all columns of x.
// Rows of pixels that are no multiple of 16 pairs end with a product of their own shape.

// The first `channels` of 16 columns of `pairs` of 16 rows of pairs, `step` elements apart, as 16 rows of 16 pairs; zero beyond.
HWY_INLINE void transpose_pairs(const T* src, int64_t step, int64_t pairs, int64_t channels, T* to) {
  const __mmask16 valid = first_of_16(channels);
  __m512i r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = i < pairs ? _mm512_maskz_loadu_epi32(valid, src + i * step) : _mm512_setzero_si512();
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {  // squares of 4 within each 128 bits
    const __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]), d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c), t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d), t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {  // t[4 g + i] holds, in part q, rows 4 g to 4 g + 3 of column 4 q + i
    const __m512i a = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x44), b = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x44), d = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xee);
    _mm512_store_si512(to + (0 + i) * 32, _mm512_shuffle_i32x4(a, c, 0x88));
    _mm512_store_si512(to + (4 + i) * 32, _mm512_shuffle_i32x4(a, c, 0xdd));
    _mm512_store_si512(to + (8 + i) * 32, _mm512_shuffle_i32x4(b, d, 0x88));
    _mm512_store_si512(to + (12 + i) * 32, _mm512_shuffle_i32x4(b, d, 0xdd));
  }
}

// Gradients of kDown x 16 outputs from `o` on and NV x 16 columns from `q` on; `a`: their tiles of d, `down` elements apart.
template <class Tiles, int kDown, int NV>
void weight_tiles(const WeightJob<T>& j, const T* a, int64_t down, int64_t o, int64_t q) {
  zero_sums<Tiles, kDown * NV>();
  constexpr int64_t kTile = kTileRows * kTileDepth;  // elements
  const int64_t b_bytes = j.x_step * int64_t(sizeof(T));
  constexpr int64_t kAcross = 2 * kWidth;
  const int64_t whole = j.pixels / 16, tail = j.pixels % 16;
  for (int64_t y = 0; y < j.rows; ++y) {
    const T* x = j.x + y * j.x_row + 2 * q;
    for (int64_t k = 0; k < whole; ++k, a += kTile, x += 16 * j.x_step) {
      if (tail == 0) {
        tile_step<Tiles, kDown, NV, true, false>(a, 64, down, x, b_bytes, kAcross);
      } else {
        tile_step<Tiles, kDown, NV, false, false>(a, 64, down, x, b_bytes, kAcross);
      }
    }
    if (tail == 0) continue;
    tile_step<Tiles, kDown, NV, false, true>(a, 64, down, x, b_bytes, kAcross);
    a += kTile;
  }
  alignas(64) float sums[kDown * kTileRows * NV * kWidth];
  store_sums<Tiles, kDown, NV>(sums, NV * kWidth);
  const float* from = sums;
  for (int64_t m = o; m < std::min<int64_t>(j.outputs, o + kDown * kTileRows); ++m, from += NV * kWidth) {
    float* to = j.dw + m * j.dw_step + q;
    for (int64_t c = 0; c < NV * kWidth; c += kWidth) {
      const M valid = first(static_cast<size_t>(std::clamp<int64_t>(j.run - q - c, 0, kWidth)));
      const V sum = load(from + c);
      store(valid, j.accumulate ? hn::Add(sum, load(valid, to + c)) : sum, to + c);
    }
  }
}

template <class Tiles>
void run_amx_weight_job(const WeightJob<T>& j) {
  for (const PairColumn& column : j.columns_ahead) pair_column(column);
  const int64_t steps = j.rows * ((j.pixels + 15) / 16), blocks = (j.outputs + kTileRows - 1) / kTileRows;
  constexpr int64_t kTile = kTileRows * kTileDepth;
  thread_local std::vector<T> memory;
  memory.resize(static_cast<size_t>(std::max<int64_t>(int64_t(memory.size()), blocks * steps * kTile + kLine<T>)));
  auto* const panel = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  for (int64_t b = 0; b < blocks; ++b) {
    T* to = panel + b * steps * kTile;
    for (int64_t y = 0; y < j.rows; ++y) {
      for (int64_t p = 0; p < j.pixels; p += 16, to += kTile) {
        transpose_pairs(j.d + y * j.d_row + p * j.d_step + b * 2 * kTileRows, j.d_step, std::min<int64_t>(16, j.pixels - p),
                        std::min<int64_t>(kTileRows, j.outputs - b * kTileRows), to);
      }
    }
  }
  configure_tiles<Tiles>(kTileRows, j.pixels % 16 * 2);
  const int64_t down = steps * kTile;
  for (int64_t b = 0; b < blocks; b += 2) {
    const T* a = panel + b * down;
    for (int64_t q = 0; q < j.run; q += 2 * kWidth) {
      const bool two_down = b + 1 < blocks, two_across = q + kWidth < j.run;
      const auto run = two_down ? (two_across ? weight_tiles<Tiles, 2, 2> : weight_tiles<Tiles, 2, 1>)
                                : (two_across ? weight_tiles<Tiles, 1, 2> : weight_tiles<Tiles, 1, 1>);
      run(j, a, down, b * kTileRows, q);
    }
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
