#include "nn/data_parallel.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "autograd/engine.h"
#include "tensor/backend.h"

namespace tessera {

DataParallel::DataParallel(const ParameterArena& arena, Communicator& ranks, int64_t bucket_bytes) : arena_(arena), ranks_(ranks) {
  if (ranks_.alone()) return;
  // Each group is cut from its end, where the first gradients come from. The cuts depend on the arena alone: how a sum over more
  // than two ranks is formed may depend on them.
  const int64_t target = std::max<int64_t>(1, bucket_bytes / int64_t(sizeof(float)));
  for (int g = 0; g < kTrainedGroups; ++g) {
    const auto& entries = arena.entries(ParamGroup(g));
    const Tensor& grads = arena.grads(ParamGroup(g));
    int64_t end = grads.numel();
    Bucket bucket;
    for (size_t i = entries.size(); i-- > 0;) {
      const ParameterArena::Entry& e = entries[i];
      ++bucket.entries;
      gradient_at_[grads.narrow(0, e.offset, e.count).raw()] = gradients_.size();
      gradients_.push_back({buckets_.size()});
      if (end - e.offset < target && i > 0) continue;
      bucket.grads = grads.narrow(0, e.offset, end - e.offset);
      end = e.offset;
      buckets_.push_back(std::move(bucket));
      bucket = {};
    }
  }
  for (size_t b = 0; b < buckets_.size(); ++b) buckets_[b].what = fmt::format("gradients, bucket {} of {}", b + 1, buckets_.size());
}

void DataParallel::send(size_t bucket, std::vector<std::unique_ptr<PendingReduce>>& in_flight) {
  Bucket& b = buckets_[bucket];
  b.sent = true;
  backend_for(b.grads.device()).join_calls_beside();
  in_flight.push_back(ranks_.start_all_reduce(b.grads, Reduce::kMean, b.what));
}

void DataParallel::use(const Tensor& grad, std::vector<std::unique_ptr<PendingReduce>>& in_flight) {
  const auto found = gradient_at_.find(grad.raw());
  if (found == gradient_at_.end()) return;  // of a parameter outside of the arena
  Gradient& g = gradients_[found->second];
  if (order_.empty()) {
    ++g.uses;
    g.last_use = ++clock_;
    return;
  }
  TESSERA_CHECK(g.left > 0 && !buckets_[g.bucket].sent,
                "data parallel: a parameter is used more often than in the first backward pass");
  if (--g.left == 0) --buckets_[g.bucket].missing;
  // Only in the agreed order: ranks that sent different buckets would add up different gradients.
  while (next_ < order_.size() && buckets_[order_[next_]].missing == 0) send(order_[next_++], in_flight);
  for (const auto& pending : in_flight) pending->test();  // MPI moves on only when it is called
}

void DataParallel::learn_order() {
  // Rank 0's observation counts for all, although they should be equal.
  std::vector<int64_t> seen;
  for (const Gradient& g : gradients_) seen.insert(seen.end(), {g.uses, g.last_use});
  ranks_.broadcast(seen.data(), int64_t(seen.size() * sizeof(int64_t)), 0, "the order of the gradients");
  std::vector<int64_t> ready(buckets_.size(), 0);
  for (size_t i = 0; i < gradients_.size(); ++i) {
    gradients_[i].uses = seen[2 * i];
    // Without a use nothing tells when it is final: at the end.
    const int64_t when = seen[2 * i] > 0 ? seen[2 * i + 1] : std::numeric_limits<int64_t>::max();
    ready[gradients_[i].bucket] = std::max(ready[gradients_[i].bucket], when);
  }
  order_.resize(buckets_.size());
  std::iota(order_.begin(), order_.end(), size_t(0));
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return ready[a] < ready[b]; });
}

void DataParallel::backward(const Variable& loss, const Tensor& seed) {
  if (ranks_.alone()) return seed.defined() ? loss.backward(seed) : loss.backward();
  std::vector<std::unique_ptr<PendingReduce>> in_flight;
  for (Bucket& b : buckets_) b.missing = b.entries, b.sent = false;
  for (Gradient& g : gradients_) g.left = g.uses;
  next_ = 0;
  Engine engine;
  engine.on_leaf([&](const Tensor& grad) { use(grad, in_flight); });
  engine.run(loss, seed.defined() ? seed : Tensor::full(loss.shape(), 1.0, loss.data().dtype(), loss.data().device()));
  if (order_.empty()) learn_order();
  while (next_ < order_.size()) send(order_[next_++], in_flight);
  for (const auto& pending : in_flight) pending->wait();
}

void DataParallel::broadcast_values() const {
  for (int g = 0; g < kAllGroups; ++g) ranks_.broadcast(arena_.values(ParamGroup(g)), 0, "weights");
}

void DataParallel::broadcast_buffers() const { ranks_.broadcast(arena_.values(ParamGroup::kBuffers), 0, "running statistics"); }

bool DataParallel::in_step() const {
  if (ranks_.alone()) return true;
  uint64_t hash = 14695981039346656037u;  // FNV-1a over words
  for (int g = 0; g < kAllGroups; ++g) {
    for (const float value : arena_.values(ParamGroup(g)).to_vector<float>()) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      hash = (hash ^ bits) * 1099511628211u;
    }
  }
  for (const uint64_t other : ranks_.all_gather(hash, "checksums of the weights")) {
    if (other != hash) hash = 0;
  }
  return hash != 0;
}

void broadcast_state(Module& module, Communicator& ranks) {
  for (const auto& [name, tensor] : module.state_dict()) ranks.broadcast(tensor, 0, name);
}

}  // namespace tessera
