// What batch norm keeps of a batch's moments, formed where the moments of all rows are known: any other place is a launch more.
#pragma once

#include <cmath>
#include <optional>

#include "cuda/device/chunks.cuh"
#include "cuda/device/element.cuh"
#include "cuda/device/moments.cuh"
#include "tensor/ops/norm.h"

namespace tessera::cuda {

// RunningStatsView, a channel at a time. average + w (value - average), as in lerp_kernel of optim.cu.
struct Running {
  float* mean;
  float* var;
  float momentum;
  __device__ void move(int c, float batch_mean, float unbiased) const {
    if (mean == nullptr) return;
    mean[c] += momentum * (batch_mean - mean[c]);
    var[c] += momentum * (unbiased - var[c]);
  }
};
inline Running running_of(const RunningStatsView& r) {
  return {static_cast<float*>(r.mean), static_cast<float*>(r.var), float(r.momentum)};
}

// What normalises the batch, and the step of the running statistics.
template <class T>
struct StoreStats {
  const T* origin;  // null: 0
  float eps;
  Running running;
  float* mean;
  float* rstd;
  __device__ void operator()(int c, const JoinedMoments::Wide& m) const {
    const float batch_mean = float((origin != nullptr ? double(load(origin[c])) : 0.0) + m.mean);
    mean[c] = batch_mean;
    rstd[c] = 1.0f / std::sqrt(float(m.m2 / m.n) + eps);
    running.move(c, batch_mean, float(m.m2 / fmax(m.n - 1, 1.0)));
  }
};

// Statistics of a convolution's result (cuda/conv.h), of the numbers as they are stored, for the launchers: a kernel that has them
// on the way leaves the moments of its chunks, and join() forms the statistics of all.
class ResultStats {
 public:
  explicit ResultStats(const StoreStats<float>& store) : store_(store) {}
  bool there() const { return room_.has_value(); }  // the kernel that ran leaves them
  const Chunks<Moments>& make(int64_t chunks, int64_t channels) { return room_.emplace(chunks, channels).get(); }
  void join() const { join_chunks<JoinedMoments>("conv2d, statistics", *room_, store_); }

 private:
  StoreStats<float> store_;
  std::optional<ChunkRoom<Moments>> room_;
};

// Where a kernel of `chunks` chunks of pixels leaves their moments; nowhere without `stats`.
inline Chunks<Moments> chunks_of(ResultStats* stats, int64_t chunks, int64_t channels) {
  return stats != nullptr ? stats->make(chunks, channels) : Chunks<Moments>{};
}

}  // namespace tessera::cuda
