// The kernel of a filter's gradient as a matrix product (cuda/device/tile.cuh) of packs of 16 bytes: rows are outputs, columns
// (tap, channel), k the pixels. Both operands are read along channels, kDepth pixels at a time.
#pragma once

#include "cuda/device/sources.cuh"

namespace tessera::cuda {

// Where number (row, tap, channel) of the product lies in the filter.
struct FilterLayout {
  int row, tap, channel;
};

// What pixel (n, a, b) of `plain` meets: image[n, a * stride + ky - pad, b * stride + kx - pad].
struct FilterTaps {
  int kh, kw, stride, pad;
  __device__ __host__ bool one() const { return kh == 1 && kw == 1 && stride == 1 && pad == 0; }
};

// The place of a block in the filter and among the pixels: block (t, chunk), tiles of the same rows are neighbours.
template <int kRows, int kCols>
struct FilterBlock {
  int columns, first_row, first_col;
  int begin, end;  // of the chunk's pixels

  __device__ FilterBlock(int columns_, int per_chunk, int pixels) : columns(columns_) {
    const int col_tiles = (columns + kCols - 1) / kCols;
    first_row = int(blockIdx.x) / col_tiles * kRows;
    first_col = int(blockIdx.x) % col_tiles * kCols;
    begin = int(blockIdx.y) * per_chunk;
    end = min(begin + per_chunk, pixels);
  }
  // The tile's sums, rows and channels of it, to the chunk's filter.
  template <class TileT>
  __device__ void store(const TileT& tile, int rows, int channels, const FilterLayout& layout, float* partial) const {
    float* const out = partial + int64_t(blockIdx.y) * rows * columns;
    tile.each([&](int row, int col, const float(&sums)[TileT::kGroup]) {
      row += first_row;
      if (row >= rows) return;
#pragma unroll
      for (int i = 0; i < TileT::kGroup; ++i) {
        const int column = first_col + col + i;
        if (column >= columns) continue;
        const int tap = column / channels;
        out[int64_t(row) * layout.row + tap * layout.tap + (column - tap * channels) * layout.channel] = sums[i];
      }
    });
  }
};

// partial[chunk, o, ky, kx, i] = sum over the chunk's pixels (n, a, b) of
//                                plain[n, a, b, o] * image[n, a * stride + ky - pad, b * stride + kx - pad, i]
// kOneTap: taps.one(), so that the pixels of both are in the same order.
template <class TileT, class T, bool kOneTap>
__global__ void __launch_bounds__(kTileThreads, 2)
    weight_ahead_kernel(Images<const T> plain, Images<const T> image, FilterTaps taps, int per_chunk, FilterLayout layout,
                        float* partial) {
  constexpr int kRows = TileT::kRows, kCols = TileT::kCols, kWidth = TileT::kRightWidth, kDepth = TileT::kDepth, kPack = kWide<T>;
  TESSERA_DYNAMIC_SHARED(Stage<TileT>, stages);
  const FilterBlock<kRows, kCols> block(taps.kh * taps.kw * image.c, per_chunk, plain.n * plain.h * plain.w);
  TileT tile;
  MatrixSource<T, kPack, kRows, kDepth, false> left(plain.p + block.first_row, 1, plain.pitch, plain.c - block.first_row,
                                                    block.begin, block.end);
  const int steps = (max(0, block.end - block.begin) + kDepth - 1) / kDepth;
  wait_for_kernel_before();
  if constexpr (kOneTap) {
    MatrixSource<T, kPack, kWidth, kDepth, false> right(image.p + block.first_col, 1, image.pitch,
                                                        min(kCols, image.c - block.first_col), block.begin, block.end);
    multiply_panels_ahead(tile, left, right, steps, stages);
  } else {
    static_assert(kWidth == kCols);
    TapSource<T, kPack, kCols, kDepth> right(image, plain.h, plain.w, taps.stride, taps.pad, taps.kh, taps.kw, block.first_col,
                                             block.begin, block.end);
    multiply_panels_ahead(tile, left, right, steps, stages);
  }
  block.store(tile, plain.c, image.c, layout, partial);
}

}  // namespace tessera::cuda
