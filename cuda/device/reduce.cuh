// Sums and maxima over a warp and a block, in a fixed order: the same bits on every run.
#pragma once

#include "cuda/device/platform.cuh"

namespace tessera::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kWarp = 32;

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Min {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

// Every lane gets combine() of all 32. Butterfly: lane i meets i ^ 16, i ^ 8, ...; both sides of a pair form the same value because
// a + b = b + a, also in floating point.
template <class Op, class T>
__device__ T warp_reduce(T value, Op combine = {}) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

// Every thread of a block (one-dimensional, whole warps, at most 1024 threads) gets combine() of all. All threads must come here;
// `neutral` leaves a value as it is.
template <class Op, class T>
__device__ T block_reduce(T value, T neutral, Op combine = {}) {
  TESSERA_SHARED(partial, T[kWarp]);
  const int lane = int(threadIdx.x) % kWarp;
  const int warp = int(threadIdx.x) / kWarp;
  value = warp_reduce(value, combine);
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  value = warp_reduce(lane < int(blockDim.x) / kWarp ? partial[lane] : neutral, combine);
  __syncthreads();  // `partial` is free for the next call
  return value;
}

// Sum of `value` over the threads of a block before this one, and over all in `total`. As block_reduce(), all threads must come here.
__device__ inline int sum_before(int value, int& total) {
  TESSERA_SHARED(of_warp, int[kWarp]);
  const int lane = int(threadIdx.x) % kWarp;
  const int warp = int(threadIdx.x) / kWarp;
  int sum = value;  // of the lanes up to this one
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int other = __shfl_up_sync(kAllLanes, sum, unsigned(distance));
    if (lane >= distance) sum += other;
  }
  if (lane == kWarp - 1) of_warp[warp] = sum;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int w = 0; w < int(blockDim.x) / kWarp; ++w) {
    if (w < warp) before += of_warp[w];
    total += of_warp[w];
  }
  __syncthreads();  // `of_warp` is free for the next call
  return before + sum - value;
}

}  // namespace tessera::cuda
