// How far long work on many images has come, for whoever shows it.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

namespace tessera {

// what: the part of the work, such as "checking val"; called after each image, one call at a time, from any thread.
using ProgressHook = std::function<void(const std::string& what, int64_t done, int64_t total)>;

class ProgressCounter {
 public:
  // hook: may be empty, and must outlive the counter.
  ProgressCounter(const ProgressHook& hook, std::string what, int64_t total) : hook_(hook), what_(std::move(what)), total_(total) {}

  void image_done() {  // any thread
    if (!hook_) return;
    const std::lock_guard lock(mutex_);
    hook_(what_, ++done_, total_);
  }

 private:
  const ProgressHook& hook_;
  std::string what_;
  int64_t total_, done_ = 0;
  std::mutex mutex_;
};

}  // namespace tessera
