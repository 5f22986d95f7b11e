// Random fills from a named Philox stream: element i takes its number from counter i, so the result is the same on any backend and
// for any number of threads.
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
  virtual void uniform(RowsView y, const RandomStream& s, double low, double high) = 0;  // dense rows
  virtual void normal(RowsView y, const RandomStream& s, double mean, double deviation) = 0;
};

namespace ops {
void uniform(const Tensor& y, const RandomStream& s, double low, double high);
void normal(const Tensor& y, const RandomStream& s, double mean, double deviation);
}  // namespace ops

}  // namespace tessera
