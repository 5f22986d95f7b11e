// Max pooling and resizes. Channels lie together, so every kernel gives a thread a pack of N channels of one
// pixel: 16 bytes an access, and a warp reads a pixel's channels, or those of neighbouring pixels, side by side.
#include <algorithm>
#include <utility>

#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"
#include "tensor/ops/bilinear.h"

namespace tessera::cuda {

namespace {

struct Pixel {
  int n, y, x;
};
// Pixel number `index` of images h x w.
__device__ Pixel pixel_at(int index, int h, int w) {
  const int line = index / w;
  const int n = line / h;
  return {n, line - n * h, index - line * w};
}

// Window of a pooling along one axis, in 32 bits.
struct Window {
  int kernel, stride, pad;
};
Window window_of(const PoolParams& p) { return {int(p.kernel), int(p.stride), int(p.pad)}; }

// Taps of a line that are read together.
constexpr int kTogether = 5;

// Small blocks: those of a small map (400 of 256 threads, 20 pixels of 16 images) miss being all on the device at once by a few, which
// would then take as long again.
constexpr unsigned kPoolThreads = 128;
constexpr int kPoolBlocks = 7;  // on a multiprocessor

// y = maximum of the window, index = ky * kernel + kx of the first one in scan order (p null: not wanted). Taps outside the image
// do not take part.
// Thread: N channels of one output pixel. Windows overlap, and the threads of a block are neighbours, so most reads are hits in the
// first cache; the taps of a line are under way together. Where a line has fewer, its last is read again, which beats nothing.
template <class T, int N>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks)
    max_pool_kernel(Images<const T> x, Images<T> y, uint8_t* index, Window window, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(y.n * y.h * y.w, y.c, col_tiles);
  if (at.count <= 0) return;
  const Pixel out = pixel_at(at.row, y.h, y.w);
  const int top = out.y * window.stride - window.pad;
  const int left = out.x * window.stride - window.pad;
  const int first_y = max(top, 0);
  const int first_x = max(left, 0);
  const int end_x = min(left + window.kernel, x.w);
  // The first tap inside starts as the best one, so that a NaN there wins as in a plain loop.
  Pack<T, N> best = unpacked(load_packed<N>(x.pixel(out.n, first_y, first_x) + at.col));
  Pack<uint8_t, N> tap;
  const int first_tap = (first_y - top) * window.kernel + first_x - left;
#pragma unroll
  for (int i = 0; i < N; ++i) tap.v[i] = uint8_t(first_tap);
  for (int iy = first_y; iy < min(top + window.kernel, x.h); ++iy) {
    for (int ix = first_x; ix < end_x; ix += kTogether) {
      Packed<T, N> taps[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) taps[k] = load_packed<N>(x.pixel(out.n, iy, min(ix + k, end_x - 1)) + at.col);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const Pack<T, N> v = unpacked(taps[k]);
        const uint8_t here = uint8_t((iy - top) * window.kernel + ix + k - left);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (v.v[i] > best.v[i]) {
            best.v[i] = v.v[i];
            tap.v[i] = here;
          }
        }
      }
    }
  }
  store_pack<N>(y.pixel(at.row) + at.col, best);
  if (index != nullptr) store_pack<N>(index + int64_t(at.row) * y.c + at.col, tap);
}

// dx = sum of dy over the windows whose maximum the pixel was, or dx += that.
// Thread: N channels of one input pixel. It asks the few windows that cover the pixel, in order: a sum of gathered values is the
// same on every run, where windows that scatter to their maximum would need atomics. The windows of a line are read together.
template <class T, int N>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks)
    max_pool_backward_kernel(Images<const T> dy, const uint8_t* index, Images<T> dx, Window window, bool accumulate,
                             int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(dx.n * dx.h * dx.w, dx.c, col_tiles);
  if (at.count <= 0) return;
  const Pixel in = pixel_at(at.row, dx.h, dx.w);
  // Output o covers input i at tap k = i + pad - o stride, 0 <= k < kernel.
  auto first_window = [&](int padded) { return max(0, padded - window.kernel + window.stride) / window.stride; };
  const int padded_y = in.y + window.pad;
  const int padded_x = in.x + window.pad;
  const int last_y = min(padded_y / window.stride, dy.h - 1);
  const int last_x = min(padded_x / window.stride, dy.w - 1);
  T* const out = dx.pixel(at.row) + at.col;
  Pack<T, N> sum{};
  if (accumulate) sum = unpacked(load_packed<N>(out));
  for (int oy = first_window(padded_y); oy <= last_y; ++oy) {
    for (int ox = first_window(padded_x); ox <= last_x; ox += kTogether) {
      Packed<uint8_t, N> winners[kTogether];
      Packed<T, N> gradients[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const int row = (in.n * dy.h + oy) * dy.w + min(ox + k, last_x);
        winners[k] = load_packed<N>(index + int64_t(row) * dy.c + at.col);
        gradients[k] = load_packed<N>(dy.pixel(row) + at.col);
      }
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const int tap = (padded_y - oy * window.stride) * window.kernel + padded_x - (ox + k) * window.stride;
        const Pack<uint8_t, N> winner = unpacked(winners[k]);
        const Pack<T, N> g = unpacked(gradients[k]);
#pragma unroll
        for (int i = 0; i < N; ++i) sum.v[i] += ox + k <= last_x && winner.v[i] == tap ? g.v[i] : 0.0f;
      }
    }
  }
  store_pack<N>(out, sum);
}

// y[n, 2i + a, 2j + b] = x[n, i, j]. T is an unsigned type of the element's size: bits move as they are.
// Thread: N channels of one input pixel, read once and written four times.
template <class T, int N>
__global__ void __launch_bounds__(256) upsample2x_kernel(Images<const T> x, Images<T> y, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(x.n * x.h * x.w, x.c, col_tiles);
  if (at.count <= 0) return;
  const Pixel in = pixel_at(at.row, x.h, x.w);
  const Pack<T, N> v = load_pack<N>(x.pixel(at.row) + at.col, at.count);
#pragma unroll
  for (int k = 0; k < 4; ++k) store_pack<N>(y.pixel(in.n, 2 * in.y + k / 2, 2 * in.x + k % 2) + at.col, v, at.count);
}

// dx[n, i, j] = sum of the four dy[n, 2i + a, 2j + b], or dx += that.
// Thread: N channels of one pixel of dx; every dy is read once.
template <class T, int N>
__global__ void __launch_bounds__(256)
    upsample2x_backward_kernel(Images<const T> dy, Images<T> dx, bool accumulate, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(dx.n * dx.h * dx.w, dx.c, col_tiles);
  if (at.count <= 0) return;
  const Pixel in = pixel_at(at.row, dx.h, dx.w);
  T* const out = dx.pixel(at.row) + at.col;
  Pack<T, N> sum{};
  if (accumulate) sum = load_pack<N>(out, at.count);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const Pack<T, N> g = load_pack<N>(dy.pixel(in.n, 2 * in.y + k / 2, 2 * in.x + k % 2) + at.col, at.count);
#pragma unroll
    for (int i = 0; i < N; ++i) sum.v[i] += g.v[i];
  }
  store_pack<N>(out, sum, at.count);
}

// y = four neighbours of x with the weights of tap_of.
// Thread: N channels of one output pixel.
template <class T, int N>
__global__ void __launch_bounds__(256) resize_bilinear_kernel(Images<const T> x, Images<T> y, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(y.n * y.h * y.w, y.c, col_tiles);
  if (at.count <= 0) return;
  const Pixel out = pixel_at(at.row, y.h, y.w);
  const Tap v = tap_of(out.y, x.h, y.h), h = tap_of(out.x, x.w, y.w);
  const auto cell = [&](int iy, int ix) { return load_pack<N>(x.pixel(out.n, iy, ix) + at.col, at.count); };
  const Pack<T, N> a = cell(v.i0, h.i0), b = cell(v.i0, h.i1), c = cell(v.i1, h.i0), d = cell(v.i1, h.i1);
  Pack<T, N> sum;
#pragma unroll
  for (int i = 0; i < N; ++i) sum.v[i] = v.w0 * (h.w0 * a.v[i] + h.w1 * b.v[i]) + v.w1 * (h.w0 * c.v[i] + h.w1 * d.v[i]);
  store_pack<N>(y.pixel(at.row) + at.col, sum, at.count);
}

// Kernels count pixels in 32 bits; the launchers check the images that the grid is not made for.
template <int N>
RowGrid pixel_grid(const ImageView& v, unsigned threads = 256) {
  return row_grid<N>(size32(v.n * v.h * v.w), v.c, threads);
}

// with_whole_packs(), the taps of a pack lying aligned too.
template <class T, class F, class... V>
void with_index_packs(F&& f, const ImageView& index, const V&... views) {
  if (reinterpret_cast<uintptr_t>(index.p) % kWide<T> == 0) {
    with_whole_packs<T>(std::forward<F>(f), views...);
  } else {
    f.template operator()<1>();
  }
}

}  // namespace

void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) {
  for_floating("max_pool2d", x.t, [&]<class T>() {
    with_index_packs<T>(
        [&]<int N>() {
          const RowGrid g = pixel_grid<N>(y, kPoolThreads);
          launch("max_pool2d", early(g.grid), max_pool_kernel<T, N>, images_of<const T>(x), images_of<T>(y), data<uint8_t>(index),
                 window_of(p), g.col_tiles);
        },
        index, x.rows(), y.rows());
  });
}

void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) {
  size32(dy.n * dy.h * dy.w);
  for_floating("max_pool2d_backward", dy.t, [&]<class T>() {
    with_index_packs<T>(
        [&]<int N>() {
          const RowGrid g = pixel_grid<N>(dx, kPoolThreads);
          launch("max_pool2d_backward", early(g.grid), max_pool_backward_kernel<T, N>, images_of<const T>(dy),
                 static_cast<const uint8_t*>(index.p), images_of<T>(dx), window_of(p), accumulate, g.col_tiles);
        },
        index, dy.rows(), dx.rows());
  });
}

void upsample2x(ImageView x, ImageView y) {
  size32(y.n * y.h * y.w);
  for_size(x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = pixel_grid<N>(x);
          launch("upsample2x", early(g.grid), upsample2x_kernel<T, N>, images_of<const T>(x), images_of<T>(y), g.col_tiles);
        },
        x.rows(), y.rows());
  });
}

void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) {
  size32(dy.n * dy.h * dy.w);
  for_floating("upsample2x_backward", dy.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = pixel_grid<N>(dx);
          launch("upsample2x_backward", early(g.grid), upsample2x_backward_kernel<T, N>, images_of<const T>(dy), images_of<T>(dx),
                 accumulate, g.col_tiles);
        },
        dy.rows(), dx.rows());
  });
}

void resize_bilinear(ImageView x, ImageView y) {
  size32(x.n * x.h * x.w);
  for_floating("resize_bilinear", x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = pixel_grid<N>(y);
          launch("resize_bilinear", early(g.grid), resize_bilinear_kernel<T, N>, images_of<const T>(x), images_of<T>(y), g.col_tiles);
        },
        x.rows(), y.rows());
  });
}

}  // namespace tessera::cuda
