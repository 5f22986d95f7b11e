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

  __device__ float first_of(int column) const {
    T value;
    value.bits = uint16_t(first[column / 2] >> column % 2 * 16);
    return load(value);
  }
  // Of a pixel: its columns j * 8 and the next from `results` on, where the thread stored them. Kept, they would take registers.
  __device__ void add(const T* results) {
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
      const Packed<T, 2> values = load_packed<2>(results + j * 8);
      if (n == 0) first[j] = uint32_t(values.v[1].bits) << 16 | values.v[0].bits;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = j * 2 + i;
        const float d = load(values.v[i]) - first_of(column);
        sum[column] += d;
        squares[column] += d * d;
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
      sum[c] = n > 0 ? first_of(c) + mean : 0.0f;
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
