// The moments of a convolution's result, formed by the kernel that writes it out of wgmma's registers.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/device/moments.cuh"
#include "cuda/device/reduce.cuh"

namespace tessera::cuda {

// Moments of results as products leave them (begin_multiply_add() of cuda/device/platform.cuh): of eight neighbouring columns a
// thread has two, 2 (lane % 4) and the next. Of the numbers as they are stored, over all tiles of a thread.
template <class T, int kCols>
struct FragmentMoments {
  static constexpr int kColumns = kCols / 4;

  uint32_t first[kColumns / 2];  // of two columns each, which are one register
  float sum[kColumns] = {}, squares[kColumns] = {};
  int n = 0;

  __device__ float origin_of(int column) const {
    return column % 2 == 0 ? first_of<T>(first[column / 2]) : second_of<T>(first[column / 2]);
  }
  // Of a pixel, two columns of each j.
  __device__ void add(const uint32_t (&pairs)[kCols / 8]) {
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
      if (n == 0) first[j] = pairs[j];
      const float d[2] = {first_of<T>(pairs[j]) - origin_of(j * 2), second_of<T>(pairs[j]) - origin_of(j * 2 + 1)};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        sum[j * 2 + i] += d[i];
        squares[j * 2 + i] += d[i] * d[i];
      }
    }
    ++n;
  }
  // to[c] = the moments of column c < cols of all kThreads threads of the block, which all come here. `parts`: shared memory for
  // the moments of each warp.
  using Parts = Moments[kCols];
  template <int kThreads>
  __device__ void store(Parts* parts, int cols, Moments* to) {
    float count = float(n);
    const float one_of_n = n > 0 ? 1.0f / count : 0.0f;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {  // mean and sum of squares about it
      const float mean = sum[c] * one_of_n;
      squares[c] = fmaxf(0.0f, squares[c] - sum[c] * mean);
      sum[c] = n > 0 ? origin_of(c) + mean : 0.0f;
    }
#pragma unroll
    for (int distance = 4; distance < kWarp; distance *= 2) {
      const float others = __shfl_xor_sync(kAllLanes, count, distance);
      const float share = others > 0 ? others / (count + others) : 0.0f;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const float away = __shfl_xor_sync(kAllLanes, sum[c], distance) - sum[c];
        squares[c] += __shfl_xor_sync(kAllLanes, squares[c], distance) + away * away * count * share;
        sum[c] += away * share;
      }
      count += others;
    }
    const int lane = int(threadIdx.x % kWarp);
    if (lane < 4) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) parts[threadIdx.x / kWarp][c / 2 * 8 + lane * 2 + c % 2] = {count, sum[c], squares[c]};
    }
    __syncthreads();
    const int t = int(threadIdx.x);
    if (t < min(kCols, cols)) to[t] = CombinedMoments{}(kThreads / kWarp, [&](int k) { return parts[k][t]; });
  }
};

}  // namespace tessera::cuda
