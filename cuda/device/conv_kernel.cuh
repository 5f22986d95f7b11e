// The kernel of convolution as a matrix product out of shared memory (cuda/conv_tiled.cu says which ops are one), for any tile.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/device/math.cuh"
#include "cuda/device/sources.cuh"

namespace tessera::cuda {

// gather: the window of result pixel (a, b) starts at (a * stride - pad, b * stride - pad) of the image.
// spread: the other way round, result pixels are where a window of the image's pixels reaches.
struct Geometry {
  bool spread;
  int stride, pad;
};

// The class of result pixels that a block works on: pixel (a, b) of it is (y + a * step, x + b * step) of the result.
struct PixelClass {
  int y, x, step;
};

__device__ inline int places(int size, int first, int step) { return first < size ? (size - first + step - 1) / step : 0; }

template <class T>
__device__ void class_of(const Geometry& g, const Filters<const T>& w, const Images<T>& y, int index, PixelClass& pixels,
                         Window& window) {
  if (!g.spread) {
    pixels = {0, 0, 1};
    window = {y.h, y.w, g.stride, 1, -g.pad, -g.pad, w.kh, w.kw, 0, 0, 1};
    return;
  }
  const int s = g.stride;
  pixels = {index / s, index % s, s};
  const int ky = (pixels.y + g.pad) % s;  // the first tap that reaches the class
  const int kx = (pixels.x + g.pad) % s;
  window = {places(y.h, pixels.y, s),
            places(y.w, pixels.x, s),
            1,
            -1,
            (pixels.y + g.pad - ky) / s,
            (pixels.x + g.pad - kx) / s,
            places(w.kh, ky, s),
            places(w.kw, kx, s),
            ky,
            kx,
            s};
}

// y[pixel, column] = act(bias[column] + sum over (tap, channel) of x[pixel at tap, channel] * w[tap, channel, column])
//                    + residual[pixel, column]
//
// A block computes kRows pixels x kCols channels (cuda/device/tile.cuh); blocks that share pixels are neighbours, so that the
// second finds the image in the cache. x is read along channels, kDepth of them for each pixel: at N > 1 in accesses of 16 bytes,
// which never cross from one tap to the next. w is read along its inputs, which are k (kFilterAlongK) or columns. The result is
// written from registers, a group of neighbouring channels at a time. What gradients add to comes in as the residual.
template <class TileT, class T, int N, bool kFilterAlongK>
__global__ void __launch_bounds__(kTileThreads, 2)
    conv_kernel(Images<const T> x, Filters<const T> w, Images<T> y, Geometry geometry, const float* bias, Activation act,
                Images<const T> residual) {
  constexpr int kRows = TileT::kRows, kCols = TileT::kCols;
  PixelClass pixels;
  Window window;
  class_of(geometry, w, y, int(blockIdx.z), pixels, window);
  const int rows = y.n * window.h * window.w;
  const int col_tiles = (y.c + kCols - 1) / kCols;
  const int first_row = int(blockIdx.x) / col_tiles * kRows;
  const int first_col = int(blockIdx.x) % col_tiles * kCols;
  if (first_row >= rows) return;  // a class smaller than the first

  const int depth = window.taps_y * window.taps_x * x.c;
  const int steps = (depth + TileT::kDepth - 1) / TileT::kDepth;
  TileT tile;
  WindowSource<T, N, kRows, TileT::kDepth> left(x, window, first_row, rows);
  if constexpr (kFilterAlongK) {
    // All taps in order, or one: in both cases k counts neighbours in w.
    const int64_t filter = int64_t(w.kh) * w.kw * w.i;
    const T* const first = w.tap(first_col, window.first_ky, window.first_kx);
    MatrixSource<T, N, kCols, TileT::kDepth, true> right(first, filter, 1, y.c - first_col, 0, depth);
    multiply_panels(tile, left, right, steps);
  } else {
    TurnedFilterSource<T, N, kCols, TileT::kDepth> right(w, window, first_col);
    multiply_panels(tile, left, right, steps);
  }

  constexpr int kGroup = TileT::kGroup;
  tile.each([&](int in_tile, int col_in_tile, const float(&sums)[kGroup]) {
    const int row = first_row + in_tile;
    const int col = first_col + col_in_tile;
    if (row >= rows || col >= y.c) return;
    const int line = row / window.w;
    const int n = line / window.h;
    const int b = row - line * window.w;
    const int a = line - n * window.h;
    const int out_y = pixels.y + a * pixels.step;
    const int out_x = pixels.x + b * pixels.step;
    T* const out = y.pixel(n, out_y, out_x) + col;
    const int count = N > 1 ? kGroup : min(kGroup, y.c - col);
    Pack<T, kGroup> v;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) v.v[i] = sums[i];
    auto add = [&](const auto* from) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) v.v[i] += i < count ? load(from[i]) : 0.0f;
    };
    if (bias != nullptr) add(bias + col);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) v.v[i] = activate(act, v.v[i]);
    if (residual.p != nullptr) add(residual.pixel(n, out_y, out_x) + col);
    if constexpr (N > 1) {
      store_pack<kGroup>(out, v);
    } else {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        if (i < count) out[i] = rounded<T>(v.v[i]);
      }
    }
  });
}

// Whether all three can be moved in packs of 16 bytes that end where the channels do.
template <class T>
bool in_packs(const ImageView& x, const FilterView& w, const ImageView& y) {
  constexpr int64_t n = kWide<T>;
  const RowsView filter{w.p, w.t, w.o * w.kh * w.kw, w.i, w.i};
  return x.c % n == 0 && y.c % n == 0 && w.i % n == 0 && rows_are_aligned(x.rows()) && rows_are_aligned(y.rows()) &&
         rows_are_aligned(filter);
}

}  // namespace tessera::cuda
