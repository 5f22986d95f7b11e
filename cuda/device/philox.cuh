// Philox4x32-10 in kernels: the same words as philox4x32() of tensor/base/rng.h.
#pragma once

#include <cstdint>

#include "cuda/device/platform.cuh"

namespace tessera::cuda {

struct PhiloxBlock {
  uint32_t word[4];
};

__device__ inline PhiloxBlock philox(PhiloxBlock c, uint32_t key0, uint32_t key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c.word[0]);
    const uint32_t low0 = 0xD2511F53u * c.word[0];
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c.word[2]);
    const uint32_t low1 = 0xCD9E8D57u * c.word[2];
    c = {{high1 ^ c.word[1] ^ key0, low1, high0 ^ c.word[3] ^ key1, low0}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

}  // namespace tessera::cuda
