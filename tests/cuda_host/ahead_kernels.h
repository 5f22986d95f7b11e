// Kernels whose copies and products go on by themselves, right and with one step left out: for emulator_test.cpp, which sees what
// they compute, and checked_test.cpp, which is instrumented and sees what they access.
#pragma once

#include "cuda/device/warpgroup.cuh"
#include "tensor/dtype.h"

namespace tessera::testing {

enum class Mistake { kNone, kNoWait, kNoClose, kNoBarrier, kNoOpen, kNoPublish, kOverwritten, kSumsWritten };

struct alignas(16) Four {
  float v[4];
};

// y = the sum of x; 256 threads, of which 64 copy.
inline void copies(const float* x, float* y, Mistake mistake) {
  TESSERA_SHARED(row, Four[64]);
  const unsigned t = threadIdx.x;
  if (t < 64) {
    cuda::copy_ahead(&row[t], x + 4 * t, true);
    if (mistake != Mistake::kNoClose) cuda::close_copies();
    if (mistake != Mistake::kNoWait) cuda::wait_for_copies<0>();
  }
  if (mistake != Mistake::kNoBarrier) __syncthreads();
  atomicAdd(y, row[(t + 4) / 4 % 64].v[t % 4]);
  if (mistake == Mistake::kNoWait) cuda::wait_for_copies<0>();
}

// y = 16, of products of ones by both warpgroups of 256 threads; the panels are numbers that each thread writes.
inline void products(const float*, float* y, Mistake mistake) {
  using Left = cuda::SwizzledPanel<64, true>;
  using Right = cuda::SwizzledPanel<16, true>;
  TESSERA_SHARED(left, Left);
  TESSERA_SHARED(right, Right);
  const unsigned t = threadIdx.x;
  const uint16_t one = BFloat16(1.0f).bits;
  for (unsigned i = t; i < 64 * 64; i += 256) left.v[i / 64][i % 64] = one;
  for (unsigned i = t; i < 16 * 64; i += 256) right.v[i / 64][i % 64] = one;
  if (mistake != Mistake::kNoPublish) cuda::publish_to_products();
  if (mistake != Mistake::kNoBarrier) __syncthreads();
  float sum[2][2][2] = {};
  if (mistake != Mistake::kNoOpen) cuda::open_products();
  cuda::begin_multiply_add<BFloat16, true, true>(sum, left.first(0, 0), right.first(0, 0));
  if (mistake != Mistake::kNoClose) cuda::close_products();
  if (mistake == Mistake::kSumsWritten) sum[0][0][0] = 1;
  if (mistake == Mistake::kOverwritten) {
    __syncthreads();
    for (unsigned i = t; i < 16 * 64; i += 256) right.v[i / 64][i % 64] = 0;
    __syncthreads();
  }
  if (mistake != Mistake::kNoWait) cuda::wait_for_products(sum);
  if (t == 77) *y = sum[1][1][0];
}

}  // namespace tessera::testing
