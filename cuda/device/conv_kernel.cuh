// The kernel of convolution as a matrix product out of shared memory (cuda/conv_tiled.cu says which ops are one), for any tile.
#pragma once

#include "cuda/device/batch_stats.cuh"
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

template <class T, class Out>
__device__ void class_of(const Geometry& g, const Filters<const T>& w, const Images<Out>& y, int index, PixelClass& pixels,
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

// What a block computes: kRows pixels of a class x kCols channels. Blocks that share pixels are neighbours, so that the second finds
// the image in the cache.
template <int kRows, int kCols>
struct ConvBlock {
  PixelClass pixels;
  Window window;
  int rows;  // of the class
  int first_row, first_col;

  template <class T, class Out>
  __device__ ConvBlock(const Geometry& geometry, const Filters<const T>& w, const Images<Out>& y) {
    class_of(geometry, w, y, int(blockIdx.z), pixels, window);
    rows = y.n * window.h * window.w;
    const int col_tiles = (y.c + kCols - 1) / kCols;
    first_row = int(blockIdx.x) / col_tiles * kRows;
    first_col = int(blockIdx.x) % col_tiles * kCols;
  }
  __device__ bool empty() const { return first_row >= rows; }  // a class smaller than the first

  // The pixel of the result that `row` is, in all images.
  template <class T>
  __device__ int64_t pixel(const Images<T>& y, int row) const {
    if (pixels.step == 1) return row;
    const int line = row / window.w;
    const int n = line / window.h;
    const int out_y = pixels.y + (line - n * window.h) * pixels.step;
    const int out_x = pixels.x + (row - line * window.w) * pixels.step;
    return int64_t(n * y.h + out_y) * y.w + out_x;
  }
};

// Calls f with the sources of both operands and the number of steps. Nothing is read for that: it may come before the wait for the
// kernel before.
template <class TileT, int N, bool kFilterAlongK, class Block, class T, class Out, class F>
__device__ void with_sources(const Block& block, const Images<const T>& x, const Filters<const T>& w, const Images<Out>& y, F&& f) {
  const Window& window = block.window;
  const int depth = window.taps_y * window.taps_x * x.c;
  const int steps = (depth + TileT::kDepth - 1) / TileT::kDepth;
  WindowSource<T, N, TileT::kRows, TileT::kDepth> left(x, window, block.first_row, block.rows);
  if constexpr (kFilterAlongK) {
    // All taps in order, or one: in both cases k counts neighbours in w.
    const int64_t filter = int64_t(w.kh) * w.kw * w.i;
    const T* const first = w.tap(block.first_col, window.first_ky, window.first_kx);
    MatrixSource<T, N, TileT::kCols, TileT::kDepth, true> right(first, filter, 1, y.c - block.first_col, 0, depth);
    f(left, right, steps);
  } else {
    TurnedFilterSource<T, N, TileT::kRightWidth, TileT::kDepth> right(w, window, block.first_col);
    f(left, right, steps);
  }
}

// y[pixel, column] = act(bias[column] + sum over (tap, channel) of x[pixel at tap, channel] * w[tap, channel, column])
//                    + residual[pixel, column]
//
// x is read along channels, kDepth of them for each pixel: at N > 1 in accesses of 16 bytes, which never cross from one tap to the
// next. w is read along its inputs, which are k (kFilterAlongK) or columns. The result is written from registers, a group of
// neighbouring channels at a time. What gradients add to comes in as the residual. Out is T, or float beside 16-bit operands.
template <class TileT, class T, int N, bool kFilterAlongK, class Out = T>
__global__ void __launch_bounds__(kTileThreads, 2)
    conv_kernel(Images<const T> x, Filters<const T> w, Images<Out> y, Geometry geometry, const float* bias, Activation act,
                Images<const Out> residual) {
  constexpr int kRows = TileT::kRows, kCols = TileT::kCols;
  const ConvBlock<kRows, kCols> block(geometry, w, y);
  if (block.empty()) return wait_for_kernel_before();
  TileT tile;
  with_sources<TileT, N, kFilterAlongK>(block, x, w, y, [&](auto& left, auto& right, int steps) {
    wait_for_kernel_before();
    multiply_panels(tile, left, right, steps);
  });

  constexpr int kGroup = TileT::kGroup;
  tile.each([&](int in_tile, int col_in_tile, const float(&sums)[kGroup]) {
    const int row = block.first_row + in_tile;
    const int col = block.first_col + col_in_tile;
    if (row >= block.rows || col >= y.c) return;
    const int64_t pixel = block.pixel(y, row);
    Out* const out = y.pixel(pixel) + col;
    const int count = N > 1 ? kGroup : min(kGroup, y.c - col);
    Pack<Out, kGroup> v;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) v.v[i] = sums[i];
    auto add = [&](const auto* from) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) v.v[i] += i < count ? load(from[i]) : 0.0f;
    };
    if (bias != nullptr) add(bias + col);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) v.v[i] = activate(act, v.v[i]);
    if (residual.p != nullptr) add(residual.pixel(pixel) + col);
    if constexpr (N > 1) {
      store_pack<kGroup>(out, v);
    } else {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        if (i < count) out[i] = rounded<Out>(v.v[i]);
      }
    }
  });
}

// A tile's sums in shared memory. The eight floats that end a row put the rows that are written at once on different banks.
template <class TileT>
struct SumsOf {
  static constexpr int kPitch = TileT::kCols + 8;
  float v[TileT::kRows][kPitch];
  Moments parts[kTileThreads];  // of each thread
};

// Whether conv_ahead_kernel can form statistics. This one's sums have all registers of sm_80.
template <class TileT>
inline constexpr bool kFormsStats = true;
template <class T>
inline constexpr bool kFormsStats<TensorCoreTile<T, 128, 64, true, true>> = false;

// Moments of the tile's first `rows` rows and `cols` columns, rounded as they are stored. Thread: a column, every kGroups-th row.
// The block is in step: all sums are there, and nothing is done with them afterwards.
template <class Out, class TileT>
__device__ void store_moments(SumsOf<TileT>& sums, int rows, int cols, Moments* to) {
  constexpr int kCols = TileT::kCols, kGroups = kTileThreads / kCols;
  const int t = int(threadIdx.x), col = t % kCols, first_row = t / kCols;
  if (first_row < kGroups) {
    const auto value = [&](int row) { return load(rounded<Out>(sums.v[row][col])); };
    Deviations of{value(first_row)};
#pragma unroll 4
    for (int row = first_row; row < rows; row += kGroups) of.add(value(row));
    sums.parts[t] = of.moments((rows - first_row + kGroups - 1) / kGroups);
  }
  __syncthreads();
  if (t < min(kCols, cols)) to[t] = CombinedMoments{}(kGroups, [&](int k) { return sums.parts[k * kCols + t]; });
}

// The same for packs of 16 bytes of 16-bit numbers: the panels come by themselves, and the sums go through shared memory, so that
// the result is written, and what is added to it read, in packs too. `stats`: of a result that is nothing but the sums.
template <class TileT, class T, bool kFilterAlongK, class Out = T>
__global__ void __launch_bounds__(kTileThreads, TileT::kResident)
    conv_ahead_kernel(Images<const T> x, Filters<const T> w, Images<Out> y, Geometry geometry, const float* bias, Activation act,
                      Images<const Out> residual, Chunks<Moments> stats) {
  constexpr int kRows = TileT::kRows, kCols = TileT::kCols, kPack = kWide<T>;
  TESSERA_DYNAMIC_SHARED(Stage<TileT>, stages);
  const ConvBlock<kRows, kCols> block(geometry, w, y);
  if (block.empty()) return wait_for_kernel_before();
  TileT tile;
  with_sources<TileT, kPack, kFilterAlongK>(block, x, w, y, [&](auto& left, auto& right, int steps) {
    wait_for_kernel_before();
    multiply_panels_ahead(tile, left, right, steps, stages);
  });

  __syncthreads();  // all have read their last panels
  auto& sums = *reinterpret_cast<SumsOf<TileT>*>(stages);
  tile.each([&](int row, int col, const float(&group)[TileT::kGroup]) {
    Pack<float, TileT::kGroup> v;
#pragma unroll
    for (int i = 0; i < TileT::kGroup; ++i) v.v[i] = group[i];
    store_pack<TileT::kGroup>(&sums.v[row][col], v);
  });
  __syncthreads();

  // All of training's forward pass and most gradients are nothing but sums: they have a loop of their own, without what each number
  // else takes (Note [Instructions of a tile] of cuda/device/result_lines.cuh).
  const auto store = [&](auto finished) {
    constexpr int kPacks = kCols / kPack;
#pragma unroll
    for (int i = 0; i < kRows * kPacks / kTileThreads; ++i) {
      const int index = int(threadIdx.x) + i * kTileThreads;
      const int in_tile = index / kPacks;
      const int col_in_tile = index % kPacks * kPack;
      const int row = block.first_row + in_tile;
      const int col = block.first_col + col_in_tile;
      if (row >= block.rows || col >= y.c) continue;
      const int64_t pixel = block.pixel(y, row);
      const Pack<float, kPack> sum = load_pack<kPack>(&sums.v[in_tile][col_in_tile]);
      store_packs<kPack>(y.pixel(pixel) + col, finished(sum, pixel, col));
    }
  };
  if (bias == nullptr && act == Activation::kNone && residual.p == nullptr) {
    store([](const Pack<float, kPack>& sum, int64_t, int) {
      Pack<Out, kPack> v;
#pragma unroll
      for (int j = 0; j < kPack; ++j) v.v[j] = sum.v[j];
      return v;
    });
  } else {
    store([&](const Pack<float, kPack>& sum, int64_t pixel, int col) {
      Pack<Out, kPack> added{};
      if (residual.p != nullptr) added = load_pack<kPack>(residual.pixel(pixel) + col);
      Pack<Out, kPack> v;
#pragma unroll
      for (int j = 0; j < kPack; ++j) v.v[j] = activate(act, sum.v[j] + (bias != nullptr ? bias[col + j] : 0.0f)) + added.v[j];
      return v;
    });
  }
  if constexpr (kFormsStats<TileT> && kFilterAlongK && std::is_same_v<Out, T>) {  // of no gradient, of no wide result
    if (!stats.wanted()) return;
    const int col_tiles = (y.c + kCols - 1) / kCols;  // the block's place anew: kept, it would take registers from the product
    const int row_tile = int(blockIdx.x) / col_tiles, col_tile = int(blockIdx.x) % col_tiles, first_col = col_tile * kCols;
    store_moments<Out>(sums, min(kRows, y.n * y.h * y.w - row_tile * kRows), y.c - first_col, stats.row(row_tile) + first_col);
  }
}

// Whether all can be moved in packs of 16 bytes that end where the channels do; the residual too, where there is one.
template <class T>
bool in_packs(const ImageView& x, const FilterView& w, const ImageView& y, const ImageView& residual = {}) {
  const RowsView filter{w.p, w.t, w.o * w.kh * w.kw, w.i, w.i};
  const auto whole = [](int64_t channels) { return channels % kWide<T> == 0; };  // y may be of a wider type than T
  return whole(x.c) && whole(y.c) && whole(w.i) && rows_are_aligned(x.rows()) && rows_are_aligned(y.rows()) &&
         rows_are_aligned(filter) && (residual.p == nullptr || rows_are_aligned(residual.rows()));
}

}  // namespace tessera::cuda
