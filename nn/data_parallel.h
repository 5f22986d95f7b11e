// Training of one model by several ranks, each with a part of every batch: gradients are averaged over the ranks while the backward
// pass is still running, so that weights stay the same everywhere.
//
// The arena's gradients are cut into buckets, flat ranges of about equal size. A bucket is reduced as soon as the last of its
// gradients is final. The first backward pass shows in which order that happens; from then on the buckets go in this order on all
// ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "nn/parameter_arena.h"
#include "tensor/comm.h"

namespace tessera {

class DataParallel {
 public:
  static constexpr int64_t kBucketBytes = int64_t(4) << 20;

  // Both must outlive this object. The ranks' arenas must have the same layout.
  DataParallel(const ParameterArena& arena, Communicator& ranks, int64_t bucket_bytes = kBucketBytes);

  // loss.backward(seed); afterwards every gradient of the arena is the mean over the ranks, with the same bits on all of them. What
  // had been accumulated there before must be the same on all ranks, and its mean is then itself. An undefined seed stands for 1.
  void backward(const Variable& loss, const Tensor& seed = {});

  // Waits for a device's work that has such reductions in it (Communicator::wait_for).
  void wait() const { ranks_.wait_for(arena_.all_grads().device()); }

  void broadcast_values() const;   // parameters and buffers of rank 0 to all
  void broadcast_buffers() const;  // running statistics alone

  // Whether parameters and buffers have the same bits on all ranks. All ranks call this, and all get the same answer.
  bool in_step() const;

  int64_t buckets() const { return int64_t(buckets_.size()); }

 private:
  struct Bucket {
    Tensor grads;
    std::string what;
    int64_t entries = 0;  // gradients in the bucket
    int64_t missing = 0;  // those that are not final yet in this pass
    bool sent = false;
  };
  struct Gradient {
    size_t bucket = 0;
    int64_t uses = 0, last_use = 0;  // in the first pass: how many operations read the parameter, and when the last of them ran
    int64_t left = 0;                // operations that have not run yet in this pass
  };
  void use(const Tensor& grad, std::vector<std::unique_ptr<PendingReduce>>& in_flight);
  void send(size_t bucket, std::vector<std::unique_ptr<PendingReduce>>& in_flight);
  void learn_order();

  const ParameterArena& arena_;
  Communicator& ranks_;
  std::vector<Bucket> buckets_;
  std::vector<Gradient> gradients_;                      // in arena order
  std::unordered_map<const void*, size_t> gradient_at_;  // by address
  std::vector<size_t> order_;                            // of the buckets; empty before the first pass
  size_t next_ = 0;                                      // in order_: the bucket to be sent next
  int64_t clock_ = 0;
};

// All parameters and buffers of rank 0's module to the others.
void broadcast_state(Module& module, Communicator& ranks);

}  // namespace tessera
