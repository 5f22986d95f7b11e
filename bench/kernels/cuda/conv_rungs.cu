// The 3x3 convolution. Each rung takes away what held the one before it back:
//
//   1 naive          every product reads both factors from memory; caches do what they can
//   2 shared tile    a block of 16 x 16 results shares panels of both factors: each value is read 16 times from shared memory
//   3 register tile  a thread has 4 x 4 results: four reads from shared memory serve 8 products, not 2
//   4 tensor cores   16-bit factors go to the units that multiply matrices; each step waits for the panels of the next
//   5 pipeline       the project's kernel (cuda/conv_tiled.cu): panels come by themselves, several steps ahead
//   6 warpgroups     the same on sm_90's units that read their factors from shared memory themselves (cuda/conv_wgmma.cu)
//   7 patches        few channels: the filter stays in shared memory, each pixel comes there once, not nine times
//                    (cuda/conv_patch.cu)
#include "bench/kernels/cuda/rungs.h"
#include "cuda/conv.h"
#include "cuda/conv_launch.cuh"

namespace tessera::study {

namespace {

using cuda::Filters;
using cuda::Images;
using cuda::load;

// All rungs but the first see one matrix product: rows are pixels, columns are output channels, and k counts (tap, channel). The
// matrix of windows is never stored: this is its element.
__device__ float window_value(const Images<const BFloat16>& x, int pixel, int k) {
  const int tap = k / x.c;
  const int channel = k - tap * x.c;
  const int line = pixel / x.w;
  const int n = line / x.h;
  const int row = line - n * x.h + tap / 3 - 1;
  const int col = pixel - line * x.w + tap % 3 - 1;
  if (n >= x.n || row < 0 || row >= x.h || col < 0 || col >= x.w) return 0;
  return load(x.pixel(n, row, col)[channel]);
}
__device__ float filter_value(const Filters<const BFloat16>& w, int k, int channel) {
  return channel < w.o ? load(w.p[int64_t(channel) * 9 * w.i + k]) : 0.0f;
}
__device__ void store_result(const Images<BFloat16>& y, int pixel, int channel, float sum) {
  if (pixel < y.n * y.h * y.w && channel < y.c) y.p[int64_t(pixel) * y.pitch + channel] = cuda::rounded<BFloat16>(sum);
}

constexpr int kSide = 16;

__global__ void __launch_bounds__(kSide* kSide)
    shared_tile_kernel(Images<const BFloat16> x, Filters<const BFloat16> w, Images<BFloat16> y) {
  TESSERA_SHARED(windows, float[kSide][kSide + 1]);  // the column more keeps threads of a warp on different banks
  TESSERA_SHARED(filters, float[kSide][kSide + 1]);
  const int tx = int(threadIdx.x) % kSide;
  const int ty = int(threadIdx.x) / kSide;
  const int pixel = int(blockIdx.x) * kSide + ty;
  const int channel = int(blockIdx.y) * kSide + tx;
  float sum = 0;
  for (int first = 0; first < 9 * x.c; first += kSide) {
    windows[ty][tx] = window_value(x, pixel, first + tx);
    filters[ty][tx] = filter_value(w, first + tx, int(blockIdx.y) * kSide + ty);  // read along k, where neighbours lie together
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kSide; ++k) sum += windows[ty][k] * filters[tx][k];
    __syncthreads();
  }
  store_result(y, pixel, channel, sum);
}

void shared_tile(const ImageView& x, const FilterView& w, const ImageView& y) {
  const dim3 blocks(cuda::blocks_for(y.n * y.h * y.w, kSide), cuda::blocks_for(y.c, kSide));
  cuda::launch("shared_tile", {blocks, dim3(kSide * kSide)}, shared_tile_kernel, cuda::images_of<const BFloat16>(x),
               cuda::filters_of<const BFloat16>(w), cuda::images_of<BFloat16>(y));
}

constexpr int kMine = 4;              // rows and columns of a thread
constexpr int kTile = kSide * kMine;  // of a block

__global__ void __launch_bounds__(kSide* kSide)
    register_tile_kernel(Images<const BFloat16> x, Filters<const BFloat16> w, Images<BFloat16> y) {
  TESSERA_SHARED(windows, float[kSide][kTile + 1]);
  TESSERA_SHARED(filters, float[kSide][kTile + 1]);
  const int tx = int(threadIdx.x) % kSide;
  const int ty = int(threadIdx.x) / kSide;
  const int first_pixel = int(blockIdx.x) * kTile;
  const int first_channel = int(blockIdx.y) * kTile;
  float sums[kMine][kMine] = {};
  for (int first = 0; first < 9 * x.c; first += kSide) {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      windows[tx][ty + i * kSide] = window_value(x, first_pixel + ty + i * kSide, first + tx);
      filters[tx][ty + i * kSide] = filter_value(w, first + tx, first_channel + ty + i * kSide);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kSide; ++k) {
      float a[kMine];
      float b[kMine];
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        a[i] = windows[k][ty + i * kSide];
        b[i] = filters[k][tx + i * kSide];
      }
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
#pragma unroll
        for (int j = 0; j < kMine; ++j) sums[i][j] += a[i] * b[j];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
#pragma unroll
    for (int j = 0; j < kMine; ++j) store_result(y, first_pixel + ty + i * kSide, first_channel + tx + j * kSide, sums[i][j]);
  }
}

void register_tile(const ImageView& x, const FilterView& w, const ImageView& y) {
  const dim3 blocks(cuda::blocks_for(y.n * y.h * y.w, kTile), cuda::blocks_for(y.c, kTile));
  cuda::launch("register_tile", {blocks, dim3(kSide * kSide)}, register_tile_kernel, cuda::images_of<const BFloat16>(x),
               cuda::filters_of<const BFloat16>(w), cuda::images_of<BFloat16>(y));
}

constexpr ConvParams kSame{.stride = 1, .pad = 1};

void tensor_cores(const ImageView& x, const FilterView& w, const ImageView& y) {
  using TileT = cuda::Tile<BFloat16, 128, 64, true, true>;
  const cuda::Geometry g{false, 1, 1};
  cuda::launch("tensor_cores", {cuda::conv_blocks<TileT::kRows, TileT::kCols>(y, g), dim3(cuda::kTileThreads)},
               cuda::conv_kernel<TileT, BFloat16, 8, true>, cuda::images_of<const BFloat16>(x), cuda::filters_of<const BFloat16>(w),
               cuda::images_of<BFloat16>(y), g, nullptr, Activation::kNone, cuda::Images<const BFloat16>{});
}

void warpgroups(const ImageView& x, const FilterView& w, const ImageView& y) {
  if (!cuda::wgmma::tile_conv2d(x, w, y, kSame, {})) cuda::tiled::conv2d(x, w, y, kSame, {});
}

void patches(const ImageView& x, const FilterView& w, const ImageView& y) {
  if (!cuda::wgmma::patch_conv2d(x, w, y, kSame, {})) cuda::tiled::conv2d(x, w, y, kSame, {});
}

}  // namespace

std::vector<Rung<ConvRung>> conv_rungs() {
  return {{"1 naive", [](const ImageView& x, const FilterView& w, const ImageView& y) { cuda::naive::conv2d(x, w, y, kSame, {}); },
           true},
          {"2 shared tile", shared_tile, true},
          {"3 register tile", register_tile, true},
          {"4 tensor cores", tensor_cores, true},
          {"5 pipeline",
           [](const ImageView& x, const FilterView& w, const ImageView& y) { cuda::tiled::conv2d(x, w, y, kSame, {}); }, true},
          {"6 warpgroups", warpgroups, true},
          {"7 patches", patches, true}};
}

}  // namespace tessera::study
