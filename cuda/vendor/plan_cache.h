// Plans of a vendor's library by key: made once, timed once, kept. Also what was refused is kept, so that it is asked once.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "tensor/base/check.h"

namespace tessera::cuda {

struct PlanCacheStats {
  int64_t hits = 0, misses = 0;
  int64_t refused = 0;            // of the misses: nothing is there to run
  int64_t over_workspace = 0;     // plans that want more memory than allowed
  int64_t timed = 0, failed = 0;  // plans that were timed; that did not run when they were
};

// Key: a struct without padding, compared as bytes. Plan: has workspace_bytes().
template <class Key, class Plan>
class PlanCache {
  static_assert(std::is_trivially_copyable_v<Key> && std::has_unique_object_representations_v<Key>,
                "padding would make equal keys differ");

 public:
  struct Offer {
    std::vector<std::unique_ptr<Plan>> list;  // best guess first
    std::string refusal;
  };
  struct Entry {
    std::unique_ptr<Plan> plan;  // null: refused
    std::string refusal;
  };

  // Plans that need more than `most_workspace` bytes are passed over.
  explicit PlanCache(size_t most_workspace) : most_workspace_(most_workspace) {}

  // The entry of `key`. On the first call: `make(key)` offers plans; with `seconds` each is timed and the fastest stays (the first
  // of equals; one that throws an Error is passed over), without it the first. The entry lives as long as the cache. One thread
  // plans at a time. What `make` throws goes to the caller, and nothing is kept.
  const Entry& find(const Key& key, const std::function<Offer(const Key&)>& make,
                    const std::function<double(const Plan&)>& seconds = {}) {
    std::lock_guard lock(mutex_);
    if (const Entry* const known = hit(key)) return *known;
    ++stats_.misses;
    Offer offer = make(key);
    Entry best{nullptr, std::move(offer.refusal)};
    double least = 0;
    for (std::unique_ptr<Plan>& plan : offer.list) {
      if (plan->workspace_bytes() > most_workspace_) {
        ++stats_.over_workspace;
        best.refusal = fmt::format("it wants {} bytes of workspace, {} are allowed", plan->workspace_bytes(), most_workspace_);
        continue;
      }
      if (!seconds) {
        best.plan = std::move(plan);
        break;
      }
      try {
        const double time = seconds(*plan);
        ++stats_.timed;
        if (best.plan && time >= least) continue;
        least = time;
        best.plan = std::move(plan);
      } catch (const Error& e) {
        ++stats_.failed;
        best.refusal = e.message();
      }
    }
    stats_.refused += best.plan == nullptr;
    return entries_.emplace(key, std::move(best)).first->second;
  }

  // Null when nothing has been planned for the key yet, which stays so.
  const Entry* find_planned(const Key& key) {
    std::lock_guard lock(mutex_);
    return hit(key);
  }

  size_t most_workspace() const { return most_workspace_; }
  PlanCacheStats stats() const {
    std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  struct Bytes {
    size_t operator()(const Key& k) const { return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&k), sizeof k}); }
    bool operator()(const Key& a, const Key& b) const { return std::memcmp(&a, &b, sizeof a) == 0; }
  };

  const Entry* hit(const Key& key) {
    const auto known = entries_.find(key);
    if (known == entries_.end()) return nullptr;
    ++stats_.hits;
    return &known->second;
  }

  const size_t most_workspace_;
  mutable std::mutex mutex_;
  std::unordered_map<Key, Entry, Bytes, Bytes> entries_;  // addresses of entries stay
  PlanCacheStats stats_;
};

}  // namespace tessera::cuda
