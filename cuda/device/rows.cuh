// Where a thread of an elementwise kernel over rows works. A block is a tile: threads side by side along the columns, `kPack`
// neighbours each, and as many rows as make its threads, mostly 256. Warps read whole lines: a row of at least 32 packs is read by full warps,
// of shorter rows a warp takes several.
#pragma once

#include <cstdint>
#include <utility>

#include "cuda/device/element.cuh"
#include "cuda/device/views.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda {

struct RowGrid {
  Grid grid;
  int col_tiles;  // tiles side by side; tile i is row i / col_tiles, column i % col_tiles of tiles
};

template <int N>
RowGrid row_grid(int64_t rows, int64_t cols, unsigned threads = 256) {
  const int64_t packs = (cols + N - 1) / N;
  unsigned width = 1;
  while (width < threads && width < packs) width *= 2;
  const unsigned height = threads / width;
  const int64_t col_tiles = (packs + width - 1) / width;
  const int64_t row_tiles = (rows + height - 1) / height;
  return {{dim3(blocks_for(col_tiles * row_tiles, 1)), dim3(width, height)}, size32(col_tiles)};
}

struct RowPlace {
  int row, col;
  int count;  // columns from `col` to the end of the row; <= 0: nothing to do
};

template <int N>
__device__ RowPlace row_place(int rows, int cols, int col_tiles) {
  const int tile_row = int(blockIdx.x) / col_tiles;
  const int tile_col = int(blockIdx.x) - tile_row * col_tiles;
  RowPlace at;
  at.row = tile_row * int(blockDim.y) + int(threadIdx.y);
  at.col = (tile_col * int(blockDim.x) + int(threadIdx.x)) * N;
  at.count = at.row < rows ? cols - at.col : 0;
  return at;
}

// Calls f.operator()<N>() with the widest pack of T that all of the views allow, or 1.
template <class T, class F, class... V>
void with_pack(F&& f, const V&... views) {
  if ((rows_are_aligned(views) && ...)) {
    f.template operator()<kWide<T>>();
  } else {
    f.template operator()<1>();
  }
}

// The same where packs must be whole: rows of an odd number of elements are taken one by one, and no kernel has to ask at every
// access how much of its pack there is. (The branch would also end each read before the next begins.)
template <class T, class F, class... V>
void with_whole_packs(F&& f, const RowsView& first, const V&... others) {
  if (first.cols % kWide<T> == 0) {
    with_pack<T>(std::forward<F>(f), first, others...);
  } else {
    f.template operator()<1>();
  }
}

}  // namespace tessera::cuda
