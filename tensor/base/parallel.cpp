#include "tensor/base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tensor/base/check.h"
#include "tensor/base/env.h"
#include "tensor/base/start_threads.h"

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

constexpr int64_t kMostChunks = (int64_t{1} << 32) - 1;  // two numbers of 32 bits: Share

thread_local bool inside_loop = false;

// The chunks that a thread starts with: loops over the same images give it those that lie in its caches. Who has none left takes
// from the end of another's.
class alignas(64) Share {
 public:
  void set(int64_t first, int64_t end) {
    range_.store(static_cast<uint64_t>(first) << 32 | static_cast<uint64_t>(end), std::memory_order_relaxed);
  }
  // The next chunk, or -1.
  int64_t take_first() {
    return take([](uint64_t first, uint64_t) { return first; }, kFirst);
  }
  int64_t take_last() {
    return take([](uint64_t, uint64_t end) { return end - 1; }, -kLast);
  }

 private:
  static constexpr uint64_t kFirst = uint64_t{1} << 32, kLast = 1;

  template <class Chunk>
  int64_t take(Chunk chunk, uint64_t step) {
    uint64_t range = range_.load(std::memory_order_relaxed);
    do {
      if (range >> 32 >= (range & 0xffffffff)) return -1;
    } while (!range_.compare_exchange_weak(range, range + step, std::memory_order_relaxed));
    return static_cast<int64_t>(chunk(range >> 32, range & 0xffffffff));
  }

  std::atomic<uint64_t> range_{0};  // first in the upper half, end in the lower
};

// Workers wait for a loop in three stages: some 100 microseconds in pauses, since the loops of a training step follow each other
// within less; then kLinger more while others may have the core; then asleep, from where a virtual machine takes 100 microseconds
// to fetch them. A loop is done when its chunks are: who has not come by then is not waited for.
class Pool {
 public:
  explicit Pool(int threads) : shares_(static_cast<size_t>(threads)) {
    start_threads(
        threads_, threads - 1, [this](int i) { work(static_cast<size_t>(i) + 1); }, [this] { stop(); },
        "use fewer --threads (TESSERA_THREADS)");
  }

  ~Pool() {
    stop();
    for (auto& t : threads_) t.join();
  }

  void run(int64_t chunks, const std::function<void(int64_t)>& body) {
    body_ = &body;
    const auto threads = static_cast<int64_t>(shares_.size());
    for (int64_t t = 0; t < threads; ++t) shares_[static_cast<size_t>(t)].set(t * chunks / threads, (t + 1) * chunks / threads);
    failure_ = nullptr;
    open_.store(true);
    bool asleep;
    {
      std::lock_guard lock(mutex_);
      generation_.fetch_add(1);
      asleep = sleepers_ > 0;
    }
    if (asleep) wake_.notify_all();
    drain(0);
    open_.store(false);
    for (int spin = 0; at_work_.load() != 0; ++spin) spin < kSpins ? __builtin_ia32_pause() : std::this_thread::yield();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static constexpr int kSpins = 2000;  // a pause takes 15 to 60 ns
  static constexpr std::chrono::microseconds kLinger{500};

  void stop() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
  }

  void drain(size_t thread) {
    inside_loop = true;
    for (size_t i = 0; i < shares_.size(); ++i) {
      Share& share = shares_[(thread + i) % shares_.size()];
      for (int64_t chunk; (chunk = i == 0 ? share.take_first() : share.take_last()) >= 0;) run_chunk(chunk);
    }
    inside_loop = false;
  }

  void run_chunk(int64_t chunk) {
    try {
      (*body_)(chunk);
    } catch (...) {
      std::lock_guard lock(failure_mutex_);
      if (!failure_) failure_ = std::current_exception();
      for (Share& share : shares_) share.set(0, 0);
    }
  }

  // Until there is another generation than `seen`.
  void wait(uint64_t seen) {
    const auto waits = [&] { return generation_.load() == seen; };
    for (int spin = 0; waits() && spin < kSpins; ++spin) __builtin_ia32_pause();
    if (!waits()) return;
    const auto end = std::chrono::steady_clock::now() + kLinger;
    while (waits() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    if (!waits()) return;
    std::unique_lock lock(mutex_);
    ++sleepers_;
    wake_.wait(lock, [&] { return !waits(); });
    --sleepers_;
  }

  // at_work_ before open_ here, open_ before at_work_ in run(), in one order for all threads: either run() waits for this thread or
  // this thread finds the loop closed and touches nothing of it.
  void work(size_t thread) {
    for (uint64_t seen = 0;;) {
      wait(seen);
      seen = generation_.load();
      if (stop_) return;
      at_work_.fetch_add(1);
      if (open_.load()) drain(thread);
      at_work_.fetch_sub(1);
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  int sleepers_ = 0;
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> stop_{false}, open_{false};
  std::atomic<int> at_work_{0};
  const std::function<void(int64_t)>* body_ = nullptr;
  std::vector<Share> shares_;  // one for each thread
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
  TESSERA_CHECK(chunks <= kMostChunks, "parallel_chunks: {} chunks, expected at most {}", chunks, kMostChunks);
  pool->run(chunks, body);
}

void parallel_for(int64_t items, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  TESSERA_CHECK(grain > 0, "parallel_for: grain = {}, expected a positive number", grain);
  const int64_t chunks = (items + grain - 1) / grain;
  parallel_chunks(chunks, [&](int64_t chunk) { body(chunk * grain, std::min(items, (chunk + 1) * grain)); });
}

}  // namespace tessera
