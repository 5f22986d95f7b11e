// The rows of the bf16 kernels on the tiles of AMX, for conv_tile_bf16.cpp. Pixels and packed weights lie as for the vectors: 32
// channels of 16 pixels are a tile of A, and the pairs that the weights are packed in (Note [Pairs]) are what the unit wants of B.
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

// Sums of kDown tiles of pixels by NV of channels over the whole of a job, to `sums`: kDown * 16 rows of NV * 16.
template <class Tiles, int kDown, int NV>
void multiply_tiles(const RowJob<T>& j, const T* a, float* sums) {
  static_assert(kDown * NV <= 4);
  Tiles::template zero<0>();
  if constexpr (kDown * NV > 1) Tiles::template zero<1>();
  if constexpr (kDown * NV > 2) Tiles::template zero<2>();
  if constexpr (kDown * NV > 3) Tiles::template zero<3>();
  const int64_t a_bytes = j.a_step * int64_t(sizeof(T)), b_bytes = NV * kSumBytes;
  const int64_t down = kTileRows * j.a_step;  // elements from a tile of pixels to the next
  const T* w = j.w;
  // One step of k: every tile of A meets every tile of B. kTurns: factors take turns in two registers each, and those of B stay for
  // all rows; else each has one, 4 and 5 or, in the shape of the tail, 6 and 7.
  const auto step = [&]<bool kTurns, bool kOfTail>(const T* p) {
    const auto row = [&]<int kRow>() {
      if constexpr (kRow < kDown) {
        constexpr int kA = kOfTail || (kTurns && kRow % 2 == 1) ? 6 : 4;
        Tiles::template load<kA>(p + kRow * down, a_bytes);
        const auto column = [&]<int kColumn>() {
          if constexpr (kColumn < NV) {
            constexpr int kB = kOfTail || (kTurns && kColumn % 2 == 1) ? 7 : 5;
            if constexpr (kRow == 0 || (NV > 1 && !kTurns)) Tiles::template load<kB>(w + kColumn * 2 * kWidth, b_bytes);
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
  };
  const int64_t whole = j.run / kTileDepth * kTileDepth, tail = j.run - whole;
  for (int64_t r = 0; r < j.kernel_rows; ++r) {
    for (int64_t t = 0; t < j.taps; ++t) {
      const T* p = a + r * j.a_row + t * j.a_tap;
      for (int64_t k = 0; k < whole; k += kTileDepth, p += kTileDepth, w += kTileDepth * NV * kWidth) {
        if (tail == 0) {
          step.template operator()<true, false>(p);
        } else {
          step.template operator()<false, false>(p);
        }
      }
      if (tail > 0) {
        step.template operator()<false, true>(p);
        w += tail * NV * kWidth;
      }
    }
  }
  const auto store = [&]<int kTile>() {
    if constexpr (kTile < kDown * NV) {
      Tiles::template store<kTile>(sums + kTile / NV * kTileRows * NV * kWidth + kTile % NV * kWidth, NV * kSumBytes);
    }
  };
  store.template operator()<0>();
  store.template operator()<1>();
  store.template operator()<2>();
  store.template operator()<3>();
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
      if (j.silu) v = hn::Mul(v, sigmoid(v));
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
    fetch(j.ahead, p / kTileRows, tiles);
    multiply_tiles<Tiles, kDown, NV>(j, j.a + p * j.a_step, sums);
    finish_tile_rows<NV>(j, p, kDown * kTileRows, sums);
  }
  for (; p < j.pixels; p += kTileRows) {
    const int64_t start = std::min(p, j.pixels - rows);
    fetch(j.ahead, p / kTileRows, tiles);
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

}  // namespace tessera::cpu::HWY_NAMESPACE::TESSERA_TILE
TESSERA_TILE_END;
