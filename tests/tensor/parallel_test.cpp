#include "tensor/base/parallel.h"

#include <doctest/doctest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tensor/base/check.h"
#include "tests/support/few_threads.h"

namespace tessera {
namespace {

class Threads {
 public:
  explicit Threads(int n) : before_(compute_threads()) { set_compute_threads(n); }
  ~Threads() { set_compute_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

TEST_CASE("every chunk runs exactly once") {
  for (int threads : {1, 2, 5}) {
    const Threads scope(threads);
    CHECK(compute_threads() == threads);
    for (int64_t chunks : {0, 1, 2, 3, 100, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(chunks));
      parallel_chunks(chunks, [&](int64_t i) { ++runs[size_t(i)]; });
      bool once = true;
      for (const auto& r : runs) once = once && r == 1;
      CHECK(once);
    }
  }
}

// The ranges depend on items and grain alone: the basis of equal bits for any number of threads.
TEST_CASE("ranges are the same for any number of threads") {
  std::set<std::pair<int64_t, int64_t>> reference;
  for (int threads : {1, 2, 4}) {
    const Threads scope(threads);
    for (int64_t items : {0, 1, 7, 64, 65}) {
      std::mutex mutex;
      std::set<std::pair<int64_t, int64_t>> ranges;
      parallel_for(items, 8, [&](int64_t begin, int64_t end) {
        std::lock_guard lock(mutex);
        ranges.emplace(begin, end);
      });
      std::set<std::pair<int64_t, int64_t>> expected;
      for (int64_t begin = 0; begin < items; begin += 8) expected.emplace(begin, std::min(items, begin + 8));
      CHECK(ranges == expected);
    }
  }
}

TEST_CASE("the first exception reaches the caller and the pool goes on") {
  for (int threads : {1, 3}) {
    const Threads scope(threads);
    CHECK_THROWS_WITH_AS(parallel_chunks(100,
                                         [](int64_t i) {
                                           if (i == 57) throw std::runtime_error("chunk 57");
                                         }),
                         "chunk 57", std::runtime_error);
    std::atomic<int> runs{0};
    parallel_chunks(50, [&](int64_t) { ++runs; });
    CHECK(runs == 50);
  }
}

TEST_CASE("nested loops run in their caller") {
  const Threads scope(3);
  std::atomic<int> inner{0};
  std::atomic<int> elsewhere{0};
  parallel_chunks(8, [&](int64_t) {
    const auto caller = std::this_thread::get_id();
    parallel_chunks(8, [&](int64_t) {
      ++inner;
      elsewhere += std::this_thread::get_id() != caller;
    });
  });
  CHECK(inner == 64);
  CHECK(elsewhere == 0);
}

TEST_CASE("an exception in a nested loop reaches the outer caller") {
  const Threads scope(3);
  CHECK_THROWS_AS(parallel_chunks(8, [](int64_t) { parallel_chunks(4, [](int64_t) { throw std::runtime_error("inner"); }); }),
                  std::runtime_error);
  std::atomic<int> runs{0};
  std::atomic<bool> other_thread{false};
  const auto caller = std::this_thread::get_id();
  parallel_chunks(2000, [&](int64_t) {
    ++runs;
    if (std::this_thread::get_id() != caller) other_thread = true;
    std::this_thread::yield();
  });
  CHECK(runs == 2000);
}

TEST_CASE("callers on several threads each get their whole loop") {
  const Threads scope(3);
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        std::atomic<int64_t> sum{0};
        parallel_chunks(20, [&](int64_t i) { sum += i; });
        total += sum;
      }
    });
  }
  for (auto& c : callers) c.join();
  CHECK(total == 4 * 200 * 190);
}

TEST_CASE("fewer threads than asked for are an error of the loop, and the next one runs") {
  const Threads scope(9);
  const std::string message = testing::error_with_few_threads([] { parallel_chunks(20, [](int64_t) {}); });
  CHECK(message.find("starts no more threads") != std::string::npos);
  CHECK(message.find("--threads") != std::string::npos);
  std::atomic<int> runs{0};
  parallel_chunks(20, [&](int64_t) { ++runs; });
  CHECK(runs == 20);
}

TEST_CASE("numbers of threads and grains out of range are refused") {
  CHECK_THROWS_AS(set_compute_threads(0), Error);
  CHECK_THROWS_AS(set_compute_threads(1025), Error);
  CHECK_THROWS_AS(parallel_for(10, 0, [](int64_t, int64_t) {}), Error);
}

}  // namespace
}  // namespace tessera
