#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <thread>

#include "tensor/base/check.h"
#include "tensor/base/rng.h"
#include "tensor/beside.h"
#include "tensor/caching_allocator.h"
#include "tensor/host_range.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace tessera {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// A system with `limit` bytes that counts what is asked of it.
struct System {
  size_t limit = 1024 * kMiB;
  size_t held = 0;
  int allocations = 0;
  int releases = 0;

  CachingAllocator::Raw raw() {
    return {[this](size_t bytes) -> void* {
              if (held + bytes > limit) return nullptr;
              held += bytes;
              ++allocations;
              return std::aligned_alloc(64, bytes);
            },
            [this](void* p, size_t bytes) {
              held -= bytes;
              ++releases;
              std::free(p);
            }};
  }
};

TEST_CASE("freed blocks are used again") {
  System system;
  CachingAllocator a(system.raw());
  void* p = a.allocate(3 * kMiB);
  CHECK(size_t(p) % 64 == 0);
  a.release(p);
  CHECK(a.allocate(3 * kMiB) == p);
  CHECK(system.allocations == 1);
  CHECK(a.stats().allocations == 2);
  CHECK(a.stats().cache_hits == 1);
  a.release(p);
  a.release(nullptr);
}

TEST_CASE("every size is served from the cache the second time") {
  System system;
  CachingAllocator a(system.raw());
  for (size_t bytes = 1000; bytes < 20 * kMiB; bytes += bytes / 7) {
    a.release(a.allocate(bytes));
    const int before = system.allocations;
    a.release(a.allocate(bytes));
    CHECK(system.allocations == before);
  }
}

TEST_CASE("small requests share a segment, its parts merge again") {
  System system;
  CachingAllocator a(system.raw());
  std::vector<void*> parts;
  for (int i = 0; i < 100; ++i) parts.push_back(a.allocate(size_t(i) * 30));
  CHECK(system.allocations == 1);
  for (size_t i = 0; i < parts.size(); ++i) {
    CHECK(size_t(parts[i]) % 64 == 0);
    for (size_t j = 0; j < i; ++j) CHECK(parts[i] != parts[j]);
  }
  for (size_t i = 0; i < parts.size(); i += 2) a.release(parts[i]);  // neighbours of used blocks
  for (size_t i = 1; i < parts.size(); i += 2) a.release(parts[i]);  // join both sides
  CHECK(a.stats().bytes_in_use == 0);
  a.trim();  // works only if everything merged into one block
  CHECK(a.stats().bytes_reserved == 0);
  CHECK(system.held == 0);
}

TEST_CASE("a large block is split when the rest is useful, and merges again") {
  System system;
  CachingAllocator a(system.raw());
  void* whole = a.allocate(16 * kMiB);
  a.release(whole);
  void* left = a.allocate(4 * kMiB);
  void* right = a.allocate(8 * kMiB);
  CHECK(system.allocations == 1);
  CHECK(left == whole);
  CHECK(static_cast<char*>(right) == static_cast<char*>(left) + 4 * kMiB);
  a.release(left);
  a.release(right);
  CHECK(a.allocate(16 * kMiB) == whole);
  CHECK(system.allocations == 1);
  a.release(whole);
}

TEST_CASE("a small request does not pin a large block") {
  System system;
  CachingAllocator a(system.raw());
  a.release(a.allocate(64 * kMiB));
  void* small = a.allocate(100);
  CHECK(system.allocations == 2);
  a.trim();
  CHECK(a.stats().bytes_reserved < int64_t(64 * kMiB));
  a.release(small);
}

TEST_CASE("large blocks of a range all merge") {
  System system;
  CachingAllocator::Raw raw = system.raw();
  std::vector<char> memory(64 * kMiB);
  size_t used = 0;
  raw.extend = [&](size_t bytes) -> void* {
    if (used + bytes > memory.size()) return nullptr;
    used += bytes;
    return memory.data() + used - bytes;
  };
  raw.shrink = [&](size_t bytes) { used -= bytes; };
  {
    CachingAllocator a(raw);
    std::vector<void*> parts;
    for (int i = 0; i < 10; ++i) parts.push_back(a.allocate(3 * kMiB));
    void* small = a.allocate(100);  // not from the range
    CHECK(system.allocations == 1);
    const size_t grown = used;
    CHECK(grown == 30 * kMiB);
    for (void* p : parts) a.release(p);
    void* whole = a.allocate(30 * kMiB);
    CHECK(whole == parts[0]);
    CHECK(used == grown);
    a.release(whole);
    // Only what the free end lacks is asked for.
    void* first = a.allocate(20 * kMiB);
    void* second = a.allocate(12 * kMiB);
    CHECK(static_cast<char*>(second) == static_cast<char*>(first) + 20 * kMiB);
    CHECK(used == 32 * kMiB);
    a.release(second);
    a.trim();
    CHECK(used == 20 * kMiB);
    CHECK(a.stats().bytes_reserved == int64_t(system.held + used));
    // Beyond the range: segments, as before.
    void* large = a.allocate(50 * kMiB);
    CHECK(system.allocations == 2);
    a.release(large);
    a.release(first);
    a.release(small);
    // Any size can be had after any grow.
    for (size_t bytes = kMiB; bytes < 8 * kMiB; bytes += 77777) {
      void* p = a.allocate(bytes);
      void* q = a.allocate(bytes / 2 + kMiB);
      a.release(p);
      a.release(q);
    }
    CHECK(a.stats().bytes_in_use == 0);
  }
  CHECK(used == 0);
}

TEST_CASE("of a range a block of just the size is taken, else the first that fits, and none is larger than 64 KiB more") {
  System system;
  CachingAllocator::Raw raw = system.raw();
  std::vector<char> memory(64 * kMiB);
  size_t used = 0;
  raw.extend = [&](size_t bytes) -> void* {
    used += bytes;
    return memory.data() + used - bytes;
  };
  raw.shrink = [&](size_t bytes) { used -= bytes; };
  CachingAllocator a(raw);
  const size_t sizes[] = {8 * kMiB, kMiB, 6 * kMiB, kMiB, 7 * kMiB, kMiB};
  std::vector<void*> parts;
  for (const size_t bytes : sizes) parts.push_back(a.allocate(bytes));
  for (const int hole : {0, 2, 4}) a.release(parts[size_t(hole)]);
  void* const exact = a.allocate(6 * kMiB);
  void* const first = a.allocate(5 * kMiB);
  CHECK(exact == parts[2]);
  CHECK(first == parts[0]);  // the smallest is parts[4]
  void* const second = a.allocate(2 * kMiB + 1);
  CHECK(second == static_cast<char*>(first) + 5 * kMiB);
  CHECK(a.stats().bytes_in_use == int64_t(16 * kMiB + 64 * 1024));
  for (void* p : {exact, first, second, parts[1], parts[3], parts[5]}) a.release(p);
}

TEST_CASE("a host range grows where it ended and gives memory back") {
  HostRange range;
  auto* a = static_cast<char*>(range.extend(4 * kMiB));
  auto* b = static_cast<char*>(range.extend(2 * kMiB));
  REQUIRE(a != nullptr);
  CHECK(b == a + 4 * kMiB);
  CHECK(size_t(a) % (2 * kMiB) == 0);
  std::memset(a, 7, 6 * kMiB);
  range.shrink(2 * kMiB);
  CHECK(range.extend(2 * kMiB) == b);
  CHECK(b[0] == 0);  // fresh memory
  CHECK(a[0] == 7);
  CHECK(range.extend(size_t{1} << 60) == nullptr);
}

TEST_CASE("the allocator counts bytes in use and reserved, and their peaks") {
  System system;
  CachingAllocator a(system.raw());
  void* p = a.allocate(2 * kMiB);
  void* q = a.allocate(4 * kMiB);
  CHECK(a.stats().bytes_in_use == int64_t(6 * kMiB));
  CHECK(a.stats().bytes_reserved == int64_t(system.held));
  a.release(p);
  CHECK(a.stats().bytes_in_use == int64_t(4 * kMiB));
  CHECK(a.stats().peak_in_use == int64_t(6 * kMiB));
  a.reset_peaks();
  CHECK(a.stats().peak_in_use == int64_t(4 * kMiB));
  a.release(q);
  a.trim();
  CHECK(a.stats().bytes_reserved == 0);
  CHECK(a.stats().peak_reserved >= int64_t(6 * kMiB));
}

TEST_CASE("what is held back is in use until it is let go, the oldest first") {
  System system;
  CachingAllocator a(system.raw());
  void* p = a.allocate(2 * kMiB);
  void* q = a.allocate(2 * kMiB);
  a.hold_back();
  a.release(q);
  a.release(p);
  CHECK(a.held_back() == 2);
  CHECK(a.stats().bytes_in_use == int64_t(4 * kMiB));
  void* r = a.allocate(2 * kMiB);
  CHECK(r != p);
  CHECK(r != q);
  a.let_go(1);
  CHECK(a.held_back() == 1);
  CHECK(a.allocate(2 * kMiB) == q);
  a.release(r);
  a.let_go();
  CHECK(a.held_back() == 0);
  CHECK(a.stats().bytes_in_use == int64_t(2 * kMiB));
  a.release(q);
  CHECK(a.stats().bytes_in_use == 0);
}

TEST_CASE("memory under calls beside is free when the group after them is complete") {
  System system;
  CachingAllocator a(system.raw());
  const auto call = [&](BesideMemory& memory) {
    void* p = a.allocate(2 * kMiB);
    memory.begin();
    a.release(p);
    return memory.end();
  };
  BesideMemory memory(a, 2);
  for (int group = 0; group < 5; ++group) {
    CHECK(!call(memory));
    CHECK(call(memory));
    CHECK(a.held_back() == 2);
  }
  CHECK(system.held == 8 * kMiB);  // of two groups
  memory.joined();
  CHECK(a.stats().bytes_in_use == 0);
  CHECK(!call(memory));
  CHECK(a.held_back() == 1);
  memory.joined();
}

TEST_CASE("without memory: the cache goes back first, then the error names the sizes") {
  System system;
  system.limit = 10 * kMiB;
  CachingAllocator a(system.raw());
  a.release(a.allocate(8 * kMiB));
  void* p = a.allocate(10 * kMiB);  // fits only after the cached 8 MiB are given back
  CHECK(p != nullptr);
  CHECK(system.releases == 1);
  try {
    a.allocate(5 * kMiB);
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kMemory);
    CHECK(e.message().find("5.0 MiB asked for, 10.0 MiB in use") != std::string::npos);
    CHECK_FALSE(e.hint().empty());
  }
  CHECK(a.stats().bytes_in_use == int64_t(10 * kMiB));
  a.release(p);
  a.release(a.allocate(5 * kMiB));  // and it goes on working
}

TEST_CASE("everything goes back at the end") {
  System system;
  {
    CachingAllocator a(system.raw());
    a.release(a.allocate(kMiB));
    a.release(a.allocate(9 * kMiB));
  }
  CHECK(system.held == 0);
  CHECK(system.allocations == system.releases);
}

#if defined(__SANITIZE_ADDRESS__)
TEST_CASE("the address sanitizer sees blocks, not only segments") {
  CachingAllocator& a = host_allocator();
  for (const size_t bytes : {size_t{1}, size_t{64}, size_t{100}, 3 * kMiB}) {
    CAPTURE(bytes);
    auto* p = static_cast<char*>(a.allocate(bytes));
    CHECK(__asan_region_is_poisoned(p, bytes) == nullptr);
    CHECK(__asan_region_is_poisoned(p, bytes + 1) == p + bytes);
    a.release(p);
    CHECK(__asan_address_is_poisoned(p));
  }
}
#endif

// Random traffic from three threads: blocks never overlap (each holds a pattern of its own) and nothing is lost.
TEST_CASE("without keeping: exact sizes, and back at once") {
  System system;
  CachingAllocator a(system.raw(), false);
  void* const small = a.allocate(128);
  void* const large = a.allocate(5 * kMiB + 64);
  CHECK(system.held == 5 * kMiB + 192);
  CHECK(a.stats().bytes_in_use == int64_t(system.held));
  a.release(small);
  CHECK(system.held == 5 * kMiB + 64);
  a.release(large);
  CHECK(system.held == 0);
  CHECK(system.releases == 2);
  CHECK(a.stats().bytes_reserved == 0);
}

TEST_CASE("blocks stay apart under random traffic") {
  System system;
  CachingAllocator a(system.raw());
  std::atomic<int> spoiled{0};
  auto traffic = [&](uint64_t seed) {
    Rng rng(seed, RngPurpose::kTest);
    struct Held {
      unsigned char* p;
      size_t bytes;
      unsigned char mark;
    };
    std::vector<Held> held;
    for (int i = 0; i < 2000; ++i) {
      if (held.size() < 20 && rng.uniform() < 0.6) {
        const size_t bytes = rng.uniform() < 0.8 ? size_t(rng.below(5000)) : size_t(rng.below(int64_t(kMiB) * 3));
        const unsigned char mark = static_cast<unsigned char>(rng.below(256));
        auto* p = static_cast<unsigned char*>(a.allocate(bytes));
        if (bytes > 0) p[0] = p[bytes - 1] = mark;
        held.push_back({p, bytes, mark});
      } else if (!held.empty()) {
        std::swap(held[size_t(rng.below(int64_t(held.size())))], held.back());
        const Held h = held.back();
        if (h.bytes > 0 && (h.p[0] != h.mark || h.p[h.bytes - 1] != h.mark)) ++spoiled;
        a.release(h.p);
        held.pop_back();
      }
    }
    for (const Held& h : held) a.release(h.p);
  };
  std::vector<std::thread> threads;
  for (uint64_t seed : {1, 2, 3}) threads.emplace_back(traffic, seed);
  for (auto& t : threads) t.join();
  CHECK(spoiled == 0);
  CHECK(a.stats().bytes_in_use == 0);
  a.trim();
  CHECK(system.held == 0);
}

}  // namespace
}  // namespace tessera
