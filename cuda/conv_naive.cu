// Convolution as the formula says it: one thread for each number of the result, a loop over what it sums. Every kernel reads the
// filter and the images once for each result and leaves it to the caches to notice that neighbours read the same: the reuse that
// conv_tiled.cu builds in shared memory is what separates the two.
#include "cuda/conv.h"
#include "cuda/device/element.cuh"
#include "cuda/device/math.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda::naive {

namespace {

constexpr int kThreads = 256;

__device__ int thread_of_grid() { return int(blockIdx.x * blockDim.x + threadIdx.x); }

// The flat index of a result of an image, channels innermost: neighbouring threads are neighbouring channels of one pixel.
struct Place {
  int n, y, x, c;
};
template <class T>
__device__ Place place_in(const Images<T>& image, int index) {
  Place at;
  at.c = index % image.c;
  index /= image.c;
  at.x = index % image.w;
  index /= image.w;
  at.y = index % image.h;
  at.n = index / image.h;
  return at;
}
template <class T>
__device__ int results_of(const Images<T>& image) {
  return image.n * image.h * image.w * image.c;
}

template <class T>
__device__ bool inside(const Images<T>& image, int y, int x) {
  return y >= 0 && y < image.h && x >= 0 && x < image.w;
}

// The output position whose window has input position `in` at tap k; -1: none.
__device__ int output_at(int in, int k, int outputs, int stride, int pad) {
  const int shifted = in + pad - k;
  if (shifted < 0 || shifted % stride != 0) return -1;
  const int out = shifted / stride;
  return out < outputs ? out : -1;
}

// y[n, oy, ox, o] = act(bias[o] + sum over ky, kx, i of x[n, oy*stride + ky - pad, ox*stride + kx - pad, i] * w[o, ky, kx, i])
//                   + residual[n, oy, ox, o]
//
// One thread an output. The threads of a warp are 32 output channels of one pixel: they read the same element of x (one access for
// all) and elements of w that lie a whole filter apart (32 accesses, but the next i comes from the same cache lines).
template <class T, class Out>
__global__ void __launch_bounds__(kThreads) conv2d_kernel(Images<const T> x, Filters<const T> w, Images<Out> y, int stride, int pad,
                                                          const float* bias, Activation act, Images<const Out> residual) {
  const int index = thread_of_grid();
  if (index >= results_of(y)) return;
  const Place at = place_in(y, index);
  float sum = bias != nullptr ? bias[at.c] : 0.0f;
  for (int ky = 0; ky < w.kh; ++ky) {
    for (int kx = 0; kx < w.kw; ++kx) {
      const int iy = at.y * stride + ky - pad;
      const int ix = at.x * stride + kx - pad;
      if (!inside(x, iy, ix)) continue;
      const T* const pixel = x.pixel(at.n, iy, ix);
      const T* const tap = w.tap(at.c, ky, kx);
      for (int i = 0; i < w.i; ++i) sum += load(pixel[i]) * load(tap[i]);
    }
  }
  sum = activate(act, sum);
  if (residual.p != nullptr) sum += load(residual.pixel(at.n, at.y, at.x)[at.c]);
  y.pixel(at.n, at.y, at.x)[at.c] = rounded<Out>(sum);
}

// dx[n, iy, ix, i] (+)= sum over o and the taps whose window reaches (iy, ix) of dy[n, oy, ox, o] * w[o, ky, kx, i]
//
// One thread an input. The threads of a warp are neighbouring input channels: dy is one access for all, w is read in full lines.
template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_data_kernel(Images<const T> dy, Filters<const T> w, Images<T> dx, int stride, int pad, bool accumulate) {
  const int index = thread_of_grid();
  if (index >= results_of(dx)) return;
  const Place at = place_in(dx, index);
  float sum = 0.0f;
  for (int ky = 0; ky < w.kh; ++ky) {
    for (int kx = 0; kx < w.kw; ++kx) {
      const int oy = output_at(at.y, ky, dy.h, stride, pad);
      const int ox = output_at(at.x, kx, dy.w, stride, pad);
      if (oy < 0 || ox < 0) continue;
      const T* const pixel = dy.pixel(at.n, oy, ox);
      for (int o = 0; o < w.o; ++o) sum += load(pixel[o]) * load(w.tap(o, ky, kx)[at.c]);
    }
  }
  put(dx.pixel(at.n, at.y, at.x)[at.c], sum, accumulate);
}

// dw[o, ky, kx, i] (+)= sum over n, oy, ox of dy[n, oy, ox, o] * x[n, oy*stride + ky - pad, ox*stride + kx - pad, i]
//
// One thread a weight, so few threads with long sums. The threads of a warp are neighbouring input channels of one tap: dy is one
// access for all, x is read in full lines.
template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_weight_kernel(Images<const T> x, Images<const T> dy, Filters<float> dw, int stride, int pad, bool accumulate) {
  int index = thread_of_grid();
  if (index >= dw.o * dw.kh * dw.kw * dw.i) return;
  const int i = index % dw.i;
  index /= dw.i;
  const int kx = index % dw.kw;
  index /= dw.kw;
  const int ky = index % dw.kh;
  const int o = index / dw.kh;
  float sum = 0.0f;
  for (int n = 0; n < dy.n; ++n) {
    for (int oy = 0; oy < dy.h; ++oy) {
      const int iy = oy * stride + ky - pad;
      for (int ox = 0; ox < dy.w; ++ox) {
        const int ix = ox * stride + kx - pad;
        if (inside(x, iy, ix)) sum += load(dy.pixel(n, oy, ox)[o]) * load(x.pixel(n, iy, ix)[i]);
      }
    }
  }
  put(dw.tap(o, ky, kx)[i], sum, accumulate);
}

// dbias[c] (+)= sum over r of dy[r, c]. One thread a channel; the threads of a warp read neighbours.
template <class T>
__global__ void __launch_bounds__(kThreads) bias_backward_kernel(Rows<const T> dy, float* dbias, bool accumulate) {
  const int c = thread_of_grid();
  if (c >= dy.cols) return;
  float sum = 0.0f;
  for (int r = 0; r < dy.rows; ++r) sum += load(dy.row(r)[c]);
  put(dbias[c], sum, accumulate);
}

// y[n, 2i+a, 2j+b, o] = bias[o] + sum over c of x[n, i, j, c] * w[o, a, b, c]. One thread an output, accesses as in conv2d_kernel.
template <class T>
__global__ void __launch_bounds__(kThreads)
    conv_transpose_kernel(Images<const T> x, Filters<const T> w, Images<T> y, const float* bias) {
  const int index = thread_of_grid();
  if (index >= results_of(y)) return;
  const Place at = place_in(y, index);
  const T* const pixel = x.pixel(at.n, at.y / 2, at.x / 2);
  const T* const tap = w.tap(at.c, at.y % 2, at.x % 2);
  float sum = bias != nullptr ? bias[at.c] : 0.0f;
  for (int c = 0; c < w.i; ++c) sum += load(pixel[c]) * load(tap[c]);
  y.pixel(at.n, at.y, at.x)[at.c] = rounded<T>(sum);
}

// dx[n, i, j, c] (+)= sum over a, b, o of dy[n, 2i+a, 2j+b, o] * w[o, a, b, c]. One thread an input, as in backward_data_kernel.
template <class T>
__global__ void __launch_bounds__(kThreads)
    conv_transpose_backward_data_kernel(Images<const T> dy, Filters<const T> w, Images<T> dx, bool accumulate) {
  const int index = thread_of_grid();
  if (index >= results_of(dx)) return;
  const Place at = place_in(dx, index);
  float sum = 0.0f;
  for (int a = 0; a < 2; ++a) {
    for (int b = 0; b < 2; ++b) {
      const T* const pixel = dy.pixel(at.n, 2 * at.y + a, 2 * at.x + b);
      for (int o = 0; o < w.o; ++o) sum += load(pixel[o]) * load(w.tap(o, a, b)[at.c]);
    }
  }
  put(dx.pixel(at.n, at.y, at.x)[at.c], sum, accumulate);
}

// dw[o, a, b, c] (+)= sum over n, i, j of x[n, i, j, c] * dy[n, 2i+a, 2j+b, o]. One thread a weight, as in backward_weight_kernel.
template <class T>
__global__ void __launch_bounds__(kThreads)
    conv_transpose_backward_weight_kernel(Images<const T> x, Images<const T> dy, Filters<float> dw, bool accumulate) {
  int index = thread_of_grid();
  if (index >= dw.o * 4 * dw.i) return;
  const int c = index % dw.i;
  index /= dw.i;
  const int b = index % 2;
  const int a = index / 2 % 2;
  const int o = index / 4;
  float sum = 0.0f;
  for (int n = 0; n < x.n; ++n) {
    for (int i = 0; i < x.h; ++i) {
      for (int j = 0; j < x.w; ++j) sum += load(x.pixel(n, i, j)[c]) * load(dy.pixel(n, 2 * i + a, 2 * j + b)[o]);
    }
  }
  put(dw.tap(o, a, b)[c], sum, accumulate);
}

Grid thread_each(const ImageView& v) { return one_thread_each(size32(v.n * v.h * v.w * v.c), kThreads); }
Grid thread_each(const FilterView& v) { return one_thread_each(size32(v.o * v.kh * v.kw * v.i), kThreads); }

}  // namespace

void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  for_floating("conv2d", x.t, [&]<class T>() {
    const auto run = [&]<class Out>() {
      launch("conv2d naive", thread_each(y), conv2d_kernel<T, Out>, images_of<const T>(x), filters_of<const T>(w), images_of<Out>(y),
             size32(p.stride), size32(p.pad), static_cast<const float*>(epilogue.bias), epilogue.activation,
             images_of<const Out>(epilogue.residual));
    };
    y.t == DType::kF32 ? run.template operator()<float>() : run.template operator()<T>();
  });
}

void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  for_floating("conv2d_backward_data", dy.t, [&]<class T>() {
    launch("conv2d_backward_data naive", thread_each(dx), backward_data_kernel<T>, images_of<const T>(dy), filters_of<const T>(w),
           images_of<T>(dx), size32(p.stride), size32(p.pad), accumulate);
  });
}

void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  for_floating("conv2d_backward_weight", x.t, [&]<class T>() {
    launch("conv2d_backward_weight naive", thread_each(dw), backward_weight_kernel<T>, images_of<const T>(x),
           images_of<const T>(dy), filters_of<float>(dw), size32(p.stride), size32(p.pad), accumulate);
  });
}

void bias_backward(RowsView dy, void* dbias, bool accumulate) {
  for_floating("bias_backward", dy.t, [&]<class T>() {
    launch("bias_backward naive", one_thread_each(dy.cols, kThreads), bias_backward_kernel<T>, rows_of<const T>(dy),
           static_cast<float*>(dbias), accumulate);
  });
}

void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  for_floating("conv_transpose2x2", x.t, [&]<class T>() {
    launch("conv_transpose2x2 naive", thread_each(y), conv_transpose_kernel<T>, images_of<const T>(x), filters_of<const T>(w),
           images_of<T>(y), static_cast<const float*>(bias));
  });
}

void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  for_floating("conv_transpose2x2_backward_data", dy.t, [&]<class T>() {
    launch("conv_transpose2x2_backward_data naive", thread_each(dx), conv_transpose_backward_data_kernel<T>, images_of<const T>(dy),
           filters_of<const T>(w), images_of<T>(dx), accumulate);
  });
}

void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  for_floating("conv_transpose2x2_backward_weight", x.t, [&]<class T>() {
    launch("conv_transpose2x2_backward_weight naive", thread_each(dw), conv_transpose_backward_weight_kernel<T>,
           images_of<const T>(x), images_of<const T>(dy), filters_of<float>(dw), accumulate);
  });
}

}  // namespace tessera::cuda::naive
