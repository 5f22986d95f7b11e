// Pixels of masks from prototypes and coefficients. Contract: tensor/ops/detect.h. Compiled without fused multiply-adds, for the
// bits of the host.
#include <vector>

#include "cuda/device/element.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "tensor/ops/detect_math.h"

namespace tessera::cuda {

namespace {

using namespace detect_math;

constexpr int kThreads = 256;
constexpr int kTile = 64;          // pixels of a block in each direction; two words of a row
constexpr int kCells = kTile + 2;  // cells that they take something from, where the target is not smaller than its slice

// A block's part of an item: at most kTile x kTile pixels from (x, y) of the target on.
struct Tile {
  int item, x, y;
};

struct MaskProblem {
  Images<const float> prototypes;
  Rows<const float> coefficients;

  // L of a cell of the item's slice, 0 outside of the crop. N channels are read at a time.
  template <int N>
  __device__ float logit(const MaskItem& m, int x, int y) const {
    x += m.slice.x0, y += m.slice.y0;
    if (x < m.crop.x0 || x >= m.crop.x1 || y < m.crop.y0 || y >= m.crop.y1) return 0;
    const float* const k = coefficients.row(m.row);
    const float* const cell = prototypes.pixel(m.image, y, x);
    if constexpr (N == 1) {
      return mask_logit(k, cell, prototypes.c);
    } else {
      static_assert(N == 4);
      LogitSum s;
      int c = 0;
      for (; c + 8 <= prototypes.c; c += 8) {
#pragma unroll
        for (int half = 0; half < 8; half += N) {
          const Pack<float, N> a = load_pack<N>(k + c + half), b = load_pack<N>(cell + c + half);
#pragma unroll
          for (int i = 0; i < N; ++i) s.lane[half + i] += a.v[i] * b.v[i];
        }
      }
      for (; c < prototypes.c; ++c) s.lane[0] += k[c] * cell[c];
      return s.sum();
    }
  }
};

// pixel = bilinear(L) > 0. Block: a tile. Logits of the cells under it are computed once, into shared memory, a thread one cell;
// then every thread has a column of the tile in every fourth row, and a warp's vote is the word of half a row. Where the target is
// smaller than its slice, pixels share few cells and compute the four of theirs.
template <int N>
__global__ void __launch_bounds__(kThreads)
    mask_patches_kernel(MaskProblem p, const MaskItem* items, const Tile* tiles, uint32_t* words) {
  TESSERA_SHARED(logits, float[kCells * kCells]);
  const int t = int(threadIdx.x);
  const Tile tile = tiles[blockIdx.x];
  const MaskItem m = items[tile.item];
  const int columns = m.slice.x1 - m.slice.x0, rows = m.slice.y1 - m.slice.y0;
  const bool same = columns == m.width && rows == m.height;
  const bool shared = columns <= m.width && rows <= m.height;
  const int x_end = min(tile.x + kTile, m.where.x1), y_end = min(tile.y + kTile, m.where.y1);
  int cell_x = 0, cell_y = 0, cell_columns = 0;
  if (shared) {
    cell_x = tap_of(tile.x, columns, m.width).i0;
    cell_y = tap_of(tile.y, rows, m.height).i0;
    cell_columns = tap_of(x_end - 1, columns, m.width).i1 + 1 - cell_x;
    const int cells = cell_columns * (tap_of(y_end - 1, rows, m.height).i1 + 1 - cell_y);
    for (int i = t; i < cells; i += kThreads) {
      const int y = i / cell_columns;
      logits[i] = p.logit<N>(m, cell_x + i - y * cell_columns, cell_y + y);
    }
  }
  __syncthreads();
  auto at = [&](int x, int y) { return shared ? logits[(y - cell_y) * cell_columns + x - cell_x] : p.logit<N>(m, x, y); };
  const int own_x = tile.x + t % kTile, word_x = own_x - t % kWarp;
  if (word_x >= x_end) return;          // a whole warp
  const int x = min(own_x, x_end - 1);  // lanes behind the end go along
  const Tap ax = tap_of(x, columns, m.width);
  const int64_t row_words = words_of_row(m.where.x1 - m.where.x0);
  uint32_t* const out = words + m.offset + (word_x - m.where.x0) / kBitsOfWord;
  for (int y = tile.y + t / kTile; y < y_end; y += kThreads / kTile) {
    float value;
    if (same) {
      value = at(x, y);
    } else {
      const Tap ay = tap_of(y, rows, m.height);
      const float upper = ax.w0 * at(ax.i0, ay.i0) + ax.w1 * at(ax.i1, ay.i0);
      const float lower = ax.w0 * at(ax.i0, ay.i1) + ax.w1 * at(ax.i1, ay.i1);
      value = ay.w0 * upper + ay.w1 * lower;
    }
    const unsigned word = __ballot_sync(kAllLanes, own_x < x_end && value > 0);
    if (t % kWarp == 0) out[(y - m.where.y0) * row_words] = word;
  }
}

template <class T>
void send(const Scratch<T>& to, const std::vector<T>& values) {
  upload(to.get(), values.data(), values.size() * sizeof(T));
}

}  // namespace

void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  expect_f32("mask_patches", prototypes.t);
  std::vector<Tile> tiles;
  for (size_t i = 0; i < items.size(); ++i) {
    const PixelBox& where = items[i].where;
    for (int y = where.y0; y < where.y1; y += kTile) {
      for (int x = where.x0; x < where.x1; x += kTile) tiles.push_back({int(i), x, y});
    }
  }
  if (tiles.empty()) return;
  const Scratch<MaskItem> device_items(int64_t(items.size()));
  const Scratch<Tile> device_tiles(int64_t(tiles.size()));
  send(device_items, std::vector<MaskItem>(items.begin(), items.end()));
  send(device_tiles, tiles);
  const MaskProblem p{images_of<const float>(prototypes), rows_of<const float>(coefficients)};
  with_pack<float>(
      [&]<int N>() {
        launch("mask_patches", {dim3(blocks_for(int64_t(tiles.size()), 1)), dim3(kThreads)}, mask_patches_kernel<N>, p,
               static_cast<const MaskItem*>(device_items.get()), static_cast<const Tile*>(device_tiles.get()), words);
      },
      coefficients, prototypes.rows());
}

}  // namespace tessera::cuda
