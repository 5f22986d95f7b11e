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

}  // namespace tessera::cuda
