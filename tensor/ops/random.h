// Random fills from a named Philox stream: element i takes its numbers from block i / 4, so the result is the same on any backend
// and for any number of threads. Block b is philox4x32({b, purpose, index, 0}, seed), so word w(i) = block(i / 4)[i % 4] is the i-th
// next_u32() of Rng(seed, purpose, index).
#pragma once

#include "tensor/base/rng.h"
#include "tensor/tensor.h"

namespace tessera {

struct RandomStream {
  uint64_t seed = 0;
  RngPurpose purpose = RngPurpose::kUser;
  uint32_t index = 0;
};

class RandomOps {
 public:
  virtual ~RandomOps() = default;
  // y(i) = low + (high - low) u, u = floor(w(i) / 256) 2^-24 in [0, 1), exact in f32; computed in double, rounded once. Dense rows.
  virtual void uniform(RowsView y, const RandomStream& s, double low, double high) = 0;
  // Box-Muller on pairs: with u = (w(2j) + 0.5) 2^-32, v = (w(2j+1) + 0.5) 2^-32 and r = sqrt(-2 log u),
  // y(2j) = mean + deviation r cos(2 pi v), y(2j+1) = mean + deviation r sin(2 pi v). Dense rows.
  virtual void normal(RowsView y, const RandomStream& s, double mean, double deviation) = 0;
};

namespace ops {
void uniform(const Tensor& y, const RandomStream& s, double low, double high);
void normal(const Tensor& y, const RandomStream& s, double mean, double deviation);
}  // namespace ops

}  // namespace tessera
