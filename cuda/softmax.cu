// Softmax and log-softmax over the last axis.
#include <algorithm>
#include <bit>
#include <cmath>

#include "cuda/device/reduce.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;

// `lanes` neighbouring threads of a warp (a power of two) have a row together: as many as it has packs, so that the short rows of
// classes and box bins fill a warp too. Lane l has packs l, l + lanes, ...: a warp reads neighbours, and nobody else touches what
// a lane reads and writes, so results may overwrite inputs.
template <int N>
int lanes_for(int64_t cols) {
  return int(std::bit_ceil(uint64_t(std::min<int64_t>((cols + N - 1) / N, kWarp))));
}
Grid grid_for(int64_t rows, int lanes) { return {dim3(blocks_for(rows, kThreads / lanes)), dim3(kThreads)}; }

// Combines the values of the lanes of a row; all 32 threads of the warp come here.
template <class Op>
__device__ float row_reduce(float value, int lanes, Op combine = {}) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// y = exp(x - m) / s or, as log, x - m - log s, with the row's maximum m and s = sum of exp(x - m): no exponent is above 0.
// Three walks over the row: maximum, sum, result. The first comes from memory, the others from the cache.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) softmax_kernel(Rows<const T> x, Rows<T> y, bool log, int lanes) {
  const int t = int(threadIdx.x);
  const int r = int(blockIdx.x) * (kThreads / lanes) + t / lanes;
  const int cols = r < x.rows ? x.cols : 0;  // rows past the end only take part in the shuffles
  const int first = t % lanes * N;
  const T* const in = x.row(r);

  float largest = -INFINITY;
  for (int c = first; c < cols; c += lanes * N) {
    const Pack<T, N> v = load_pack<N>(in + c, cols - c);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i < cols - c) largest = Max{}(largest, v.v[i]);
    }
  }
  largest = row_reduce<Max>(largest, lanes);

  float sum = 0;
  for (int c = first; c < cols; c += lanes * N) {
    const Pack<T, N> v = load_pack<N>(in + c, cols - c);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i < cols - c) sum += std::exp(v.v[i] - largest);
    }
  }
  sum = row_reduce<Add>(sum, lanes);

  const float log_sum = std::log(sum);
  const float one_of_sum = 1.0f / sum;
  for (int c = first; c < cols; c += lanes * N) {
    Pack<T, N> v = load_pack<N>(in + c, cols - c);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float shifted = v.v[i] - largest;
      v.v[i] = log ? shifted - log_sum : std::exp(shifted) * one_of_sum;
    }
    store_pack<N>(y.row(r) + c, v, cols - c);
  }
}

// dx = y (dy - sum of y dy); for log-softmax dx = dy - exp(y) sum of dy.
// Threads as in softmax_kernel; two walks over the row.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    softmax_backward_kernel(Rows<const T> y, Rows<const T> dy, Rows<T> dx, bool log, int lanes) {
  const int t = int(threadIdx.x);
  const int r = int(blockIdx.x) * (kThreads / lanes) + t / lanes;
  const int cols = r < y.rows ? y.cols : 0;
  const int first = t % lanes * N;

  float sum = 0;
  for (int c = first; c < cols; c += lanes * N) {
    const Pack<T, N> v = load_pack<N>(y.row(r) + c, cols - c);
    const Pack<T, N> g = load_pack<N>(dy.row(r) + c, cols - c);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += log ? g.v[i] : v.v[i] * g.v[i];  // past the end of the row both are 0
  }
  sum = row_reduce<Add>(sum, lanes);

  for (int c = first; c < cols; c += lanes * N) {
    const Pack<T, N> v = load_pack<N>(y.row(r) + c, cols - c);
    Pack<T, N> g = load_pack<N>(dy.row(r) + c, cols - c);
#pragma unroll
    for (int i = 0; i < N; ++i) g.v[i] = log ? g.v[i] - std::exp(v.v[i]) * sum : v.v[i] * (g.v[i] - sum);
    store_pack<N>(dx.row(r) + c, g, cols - c);
  }
}

}  // namespace

void softmax(RowsView x, RowsView y, bool log) {
  for_floating("softmax", x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const int lanes = lanes_for<N>(x.cols);
          launch("softmax", grid_for(x.rows, lanes), softmax_kernel<T, N>, rows_of<const T>(x), rows_of<T>(y), log, lanes);
        },
        x, y);
  });
}

void softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) {
  for_floating("softmax_backward", y.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const int lanes = lanes_for<N>(y.cols);
          launch("softmax_backward", grid_for(y.rows, lanes), softmax_backward_kernel<T, N>, rows_of<const T>(y),
                 rows_of<const T>(dy), rows_of<T>(dx), log, lanes);
        },
        y, dy, dx);
  });
}

}  // namespace tessera::cuda
