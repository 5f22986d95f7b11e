// The sum of a loss, and the cross-entropy that two of them share. What blocks leave is in double: the terms of a batch run into
// millions.
#pragma once

#include "cuda/context.h"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "tensor/ops/pointwise_functors.h"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// Blocks that have come; 0 between two kernels. Those that share it run one after the other, in one stream.
__device__ unsigned ticket;

// For all threads of the block that is the last of `count` to come here: true, and what the others have written before they came is
// there, to be read with __ldcg(): not from the first cache, which is the multiprocessor's own. All threads of a block come here.
__device__ bool comes_last(unsigned* blocks, int count) {
  __syncthreads();  // the fence is for what all threads have written
  if (count == 1) return true;
  bool last = false;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(blocks, unsigned(count - 1)) == unsigned(count - 1);
    __threadfence();
  }
  return __syncthreads_or(last) != 0;
}

struct BlockSums {
  double* partial;  // of each block
  float* total;
};

// total = the sum of what all threads of all blocks bring, all of which come here. The last block adds up what the blocks have: a
// thread every 256th, so the block reads neighbours.
__device__ void add_to_total(const BlockSums& sums, double value) {
  value = block_reduce<Add>(value, 0.0);
  if (threadIdx.x == 0) sums.partial[blockIdx.x] = value;
  if (!comes_last(&ticket, int(gridDim.x))) return;
  double all = 0;
  for (int i = int(threadIdx.x); i < int(gridDim.x); i += kThreads) all += __ldcg(sums.partial + i);
  all = block_reduce<Add>(all, 0.0);
  if (threadIdx.x == 0) *sums.total = float(all);
}

// total = the sum of what the `blocks` blocks of a kernel bring; start(sums) launches it.
template <class F>
void sum_of_blocks(int64_t blocks, float* total, F&& start) {
  if (blocks == 0) return fill({total, DType::kF32, {1}, {1}}, 0);
  const Scratch<double> partial(blocks);
  start(BlockSums{partial.get(), total});
}

// Of a logit against a target in [0, 1]: max(x, 0) - x t + log(1 + exp(-|x|)).
__device__ float cross_entropy(float logit, float target) { return functors::Softplus::f(logit) - logit * target; }

constexpr int kPacksOfThread = 4;
constexpr int kPacksOfBlock = kPacksOfThread * kThreads;  // of elementwise sums

}  // namespace

}  // namespace tessera::cuda
