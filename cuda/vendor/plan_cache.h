// Plans of a vendor's library by key: made once, timed once, kept. Also what was refused is kept, so that it is asked once.
#pragma once

#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
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
  int64_t timed = 0, failed = 0;  // plans that ran when they were tried; that did not
  int64_t struck = 0;             // plans that had run and then did not
  double seconds = 0;             // that finding plans took
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

  // Runs a plan that is not wanted for its result; its seconds, or an Error. `least`: of the plans tried before, so that a hopeless
  // one need not be timed to the end.
  using Trial = std::function<double(const Plan& plan, double least)>;
  enum class Rule { kFastest, kFirstThatRuns };

  // The entry of `key`. On the first call `make(key)` offers plans, and the fastest stays (the first of equals), or the first that
  // runs; one whose trial throws an Error is passed over. Without a trial the first stays. The entry lives as long as the cache. One
  // thread plans at a time. What `make` throws goes to the caller, and nothing is kept.
  const Entry& find(const Key& key, const std::function<Offer(const Key&)>& make, const Trial& trial = {}, Rule rule = Rule::kFastest) {
    std::lock_guard lock(mutex_);
    if (const Entry* const known = hit(key)) return *known;
    ++stats_.misses;
    const auto begin = std::chrono::steady_clock::now();
    Offer offer = make(key);
    Entry best{nullptr, std::move(offer.refusal)};
    double least = std::numeric_limits<double>::infinity();
    for (std::unique_ptr<Plan>& plan : offer.list) {
      if (plan->workspace_bytes() > most_workspace_) {
        ++stats_.over_workspace;
        best.refusal = fmt::format("it wants {} bytes of workspace, {} are allowed", plan->workspace_bytes(), most_workspace_);
        continue;
      }
      try {
        const double time = trial ? trial(*plan, least) : 0;
        stats_.timed += trial != nullptr;
        if (best.plan && time >= least) continue;
        least = time;
        best.plan = std::move(plan);
      } catch (const Error& e) {
        ++stats_.failed;
        best.refusal = e.message();
      }
      if (best.plan && (!trial || rule == Rule::kFirstThatRuns)) break;
    }
    stats_.refused += best.plan == nullptr;
    stats_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return entries_.emplace(key, std::move(best)).first->second;
  }

  // The plan of `key` ran when it was tried and does not now: refused from here on. It is kept, a recorded graph may hold its code.
  void strike(const Key& key, const std::string& why) {
    std::lock_guard lock(mutex_);
    Entry& entry = entries_.at(key);
    ++stats_.struck;
    struck_.push_back(std::move(entry.plan));
    entry.refusal = why;
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
  std::vector<std::unique_ptr<Plan>> struck_;
  PlanCacheStats stats_;
};

}  // namespace tessera::cuda
