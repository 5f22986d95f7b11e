// The matrix product in tiles out of shared memory.
#include <cstdlib>

#include "cuda/conv.h"
#include "cuda/device/matrices.cuh"
#include "cuda/device/sources.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda::tiled {

namespace {

constexpr int kSide = 64;  // of a tile

// c[n, i, j] (+)= sum over k of a[n, i, k] * b[n, k, j]
//
// A block computes 64 x 64 results of one matrix (cuda/device/tile.cuh). Each operand is read along its smaller stride, k or the
// rows and columns, element by element: any strides will do.
template <class T, bool kLeftAlongK, bool kRightAlongK>
__global__ void __launch_bounds__(kTileThreads, 2)
    matmul_kernel(Matrices<const T> a, Matrices<const T> b, Matrices<T> c, bool accumulate) {
  using TileT = Tile<T, kSide, kSide, kLeftAlongK, kRightAlongK>;
  const int row_tiles = (c.rows + kSide - 1) / kSide;
  const int col_tiles = (c.cols + kSide - 1) / kSide;
  const int n = int(blockIdx.x) / (row_tiles * col_tiles);
  const int in_matrix = int(blockIdx.x) - n * row_tiles * col_tiles;
  const int first_row = in_matrix / col_tiles * kSide;
  const int first_col = in_matrix % col_tiles * kSide;
  TileT tile;
  MatrixSource<T, 1, kSide, TileT::kDepth, kLeftAlongK> left(a.at(n, first_row, 0), a.row_stride, a.col_stride, c.rows - first_row,
                                                             0, a.cols);
  MatrixSource<T, 1, kSide, TileT::kDepth, kRightAlongK> right(b.at(n, 0, first_col), b.col_stride, b.row_stride,
                                                               c.cols - first_col, 0, a.cols);
  multiply_panels(tile, left, right, (a.cols + TileT::kDepth - 1) / TileT::kDepth);
  tile.each([&](int row, int col, const float(&sums)[TileT::kGroup]) {
#pragma unroll
    for (int i = 0; i < TileT::kGroup; ++i) {
      const int r = first_row + row;
      const int j = first_col + col + i;
      if (r < c.rows && j < c.cols) put(*c.at(n, r, j), sums[i], accumulate);
    }
  });
}

}  // namespace

void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  const int64_t tiles = c.batch * blocks_for(c.rows, kSide) * blocks_for(c.cols, kSide);
  const Grid grid{dim3(blocks_for(tiles, 1)), dim3(kTileThreads)};
  const bool left_along_k = std::abs(a.col_stride) <= std::abs(a.row_stride);
  const bool right_along_k = std::abs(b.row_stride) < std::abs(b.col_stride);
  for_floating("matmul", c.t, [&]<class T>() {
    auto run = [&]<bool kLeft, bool kRight>() {
      launch("matmul", grid, matmul_kernel<T, kLeft, kRight>, matrices_of<const T>(a), matrices_of<const T>(b), matrices_of<T>(c),
             accumulate);
    };
    if (left_along_k) {
      right_along_k ? run.template operator()<true, true>() : run.template operator()<true, false>();
    } else {
      right_along_k ? run.template operator()<false, true>() : run.template operator()<false, false>();
    }
  });
}

}  // namespace tessera::cuda::tiled
