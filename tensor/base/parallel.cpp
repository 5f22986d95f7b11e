#include "tensor/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <sched.h>

#include "tensor/base/check.h"
#include "tensor/base/env.h"

namespace tessera {

namespace {

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

int default_threads() {
  const auto text = env("TESSERA_THREADS");
  if (!text) return usable_cores();
  int n = 0;
  const auto [end, failed] = std::from_chars(text->data(), text->data() + text->size(), n);
  if (failed != std::errc() || end != text->data() + text->size() || n < 1 || n > 1024) {
    throw Error(ErrorCode::kUsage, fmt::format("TESSERA_THREADS is '{}', expected a number from 1 to 1024", *text));
  }
  return n;
}

thread_local bool inside_loop = false;

// Workers sleep on a condition variable between loops after a spin of some 50 microseconds: the loops of a training step follow each
// other within less, and waking a sleeper costs more than many of them take.
class Pool {
 public:
  explicit Pool(int threads) : size_(threads) {
    for (int i = 1; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }

  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& t : threads_) t.join();
  }

  int size() const { return size_; }

  void run(int64_t chunks, const std::function<void(int64_t)>& body) {
    {
      std::lock_guard lock(mutex_);
      body_ = &body;
      chunks_ = chunks;
      next_.store(0, std::memory_order_relaxed);
      busy_.store(size_ - 1, std::memory_order_relaxed);
      failure_ = nullptr;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    drain();
    for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin) {
      spin < kSpins ? __builtin_ia32_pause() : std::this_thread::yield();
    }
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static constexpr int kSpins = 2000;  // a pause takes 15 to 60 ns

  void drain() {
    inside_loop = true;
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;) {
      try {
        (*body_)(i);
      } catch (...) {
        std::lock_guard lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
        next_.store(chunks_, std::memory_order_relaxed);
      }
    }
    inside_loop = false;
  }

  void work() {
    uint64_t seen = 0;
    for (;;) {
      uint64_t now = generation_.load(std::memory_order_acquire);
      for (int spin = 0; now == seen && spin < kSpins; ++spin) {
        __builtin_ia32_pause();
        now = generation_.load(std::memory_order_acquire);
      }
      if (now == seen) {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        now = generation_.load(std::memory_order_acquire);
      }
      seen = now;
      if (stop_) return;
      drain();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  const int size_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t chunks_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;  // last: they use everything above
};

std::mutex pool_mutex;  // held by the one loop that runs on the pool
std::unique_ptr<Pool> pool;
std::atomic<int> thread_count{0};

void run_serially(int64_t chunks, const std::function<void(int64_t)>& body) {
  for (int64_t i = 0; i < chunks; ++i) body(i);
}

}  // namespace

int compute_threads() {
  int n = thread_count.load(std::memory_order_relaxed);
  if (n == 0) {
    n = default_threads();
    thread_count.store(n, std::memory_order_relaxed);
  }
  return n;
}

void set_compute_threads(int n) {
  if (n < 1 || n > 1024) {
    throw Error(ErrorCode::kUsage, fmt::format("{} compute threads asked for, expected a number from 1 to 1024", n));
  }
  std::lock_guard lock(pool_mutex);
  pool.reset();
  thread_count.store(n, std::memory_order_relaxed);
}

void parallel_chunks(int64_t chunks, const std::function<void(int64_t)>& body) {
  if (chunks <= 0) return;
  if (inside_loop || chunks == 1 || compute_threads() == 1) return run_serially(chunks, body);
  std::unique_lock lock(pool_mutex, std::try_to_lock);
  if (!lock) return run_serially(chunks, body);
  if (!pool) pool = std::make_unique<Pool>(compute_threads());
  pool->run(chunks, body);
}

void parallel_for(int64_t items, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  TESSERA_CHECK(grain > 0, "parallel_for: grain = {}, expected a positive number", grain);
  const int64_t chunks = (items + grain - 1) / grain;
  parallel_chunks(chunks, [&](int64_t chunk) { body(chunk * grain, std::min(items, (chunk + 1) * grain)); });
}

}  // namespace tessera
