// The sum of a loss, and the cross-entropy that two of them share. What blocks leave is in double: the terms of a batch run into
// millions.
#pragma once

#include <algorithm>

#include "cuda/context.h"
#include "cuda/device/reduce.cuh"
#include "cuda/launch.cuh"
#include "tensor/ops/pointwise_functors.h"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// total = sum of partial[0 .. count).
// One block: a thread adds every 256th, so the block reads neighbours, then all meet in block_reduce.
__global__ void __launch_bounds__(kThreads) total_kernel(const double* partial, int count, float* total) {
  double sum = 0;
  for (int i = int(threadIdx.x); i < count; i += kThreads) sum += partial[i];
  sum = block_reduce<Add>(sum, 0.0);
  if (threadIdx.x == 0) *total = float(sum);
}

// total = the sum of what the `blocks` blocks of a kernel leave; start(partial) launches it.
template <class F>
void sum_of_blocks(int64_t blocks, float* total, F&& start) {
  const Scratch<double> partial(std::max<int64_t>(blocks, 1));
  start(partial.get());
  launch("loss total", {dim3(1), dim3(kThreads)}, total_kernel, static_cast<const double*>(partial.get()), size32(blocks), total);
}

// Of a logit against a target in [0, 1]: max(x, 0) - x t + log(1 + exp(-|x|)).
__device__ float cross_entropy(float logit, float target) { return functors::Softplus::f(logit) - logit * target; }

constexpr int kPacksOfBlock = 8 * kThreads;  // of elementwise sums

}  // namespace

}  // namespace tessera::cuda
