// Keeps freed blocks for re-use, so that a training step costs no system calls and no page faults after the first one.
//
// Note [Why a cache]: fresh pages cost about 0.4 ms per MiB to touch for the first time, recycled ones 0.03; a step of a small
// model allocates gigabytes in the same sizes over and over. Policy: sizes are rounded up to 64 bytes (below 1 MiB) or to 1/8 of
// their power of two (above); a request takes the smallest free block that fits, if that wastes less than a quarter or the rest
// can be split off; freed neighbours merge. Segments come from the raw allocator and go back only through trim(). Large blocks of
// the host lie in one range of addresses that grows at its end (host_range.h), so that all of them can merge: what a step and a
// validation need is the larger of the two, not the sum. There sizes are rounded to 64 KiB, and a request takes a block of just its
// size, else the first that fits: what a step allocates first it frees last, so low addresses fill up and the end stays whole.
// Replayed on the requests of steps of n, s and m, that holds 0 to 8 % more than is in use, the smallest block that fits 3 to 10 %.
//
// Under the address sanitizer only the bytes that were asked for may be touched while they are held; without that a use after
// release, or a step past the end, would land in the same segment and go unseen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace tessera {

struct AllocatorStats {
  int64_t bytes_in_use = 0;    // handed out now
  int64_t bytes_reserved = 0;  // held from the system now
  int64_t peak_in_use = 0;
  int64_t peak_reserved = 0;
  int64_t allocations = 0;  // calls served since the start
  int64_t cache_hits = 0;   // of these, without the raw allocator
};

class CachingAllocator {
 public:
  // allocate(bytes) returns 64-byte aligned memory or null; release gives it back.
  struct Raw {
    std::function<void*(size_t bytes)> allocate;
    std::function<void(void* p, size_t bytes)> release;
    size_t guard = 0;  // more bytes in each block than asked for, so that blocks do not touch
    // Optional: large blocks come from one range. extend(bytes) returns where `bytes` more begin, which is the end of what it gave
    // before, or null; shrink(bytes) takes that many back from the end.
    std::function<void*(size_t bytes)> extend = nullptr;
    std::function<void(size_t bytes)> shrink = nullptr;
  };

  // keep = false: every block is a raw allocation of exactly its size and goes back at once, for tools that watch their bounds.
  explicit CachingAllocator(Raw raw, bool keep = true);
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  // 64-byte aligned; thread-safe. When the system has no more: frees the cache, tries once more, then throws Error(kMemory) that
  // says what was asked for and what is in use.
  void* allocate(size_t bytes);
  void release(void* p) noexcept;
  void trim();  // give unused segments back

  // From now on blocks that are released wait, as if in use, until they are let go: work that goes on beside may still read them.
  void hold_back();
  size_t held_back() const;     // blocks that wait
  void let_go(size_t count);    // those that have waited longest
  void let_go();                // all, and no more wait

  AllocatorStats stats() const;
  void reset_peaks();

 private:
  struct Block {
    char* begin;
    size_t bytes;
    size_t segment;  // identifies the raw allocation, 0 the range; blocks merge only inside one
    bool free;
  };
  using BlockMap = std::map<char*, Block>;
  struct BySize {
    bool operator()(const Block* a, const Block* b) const {
      return a->bytes != b->bytes ? a->bytes < b->bytes : a->begin < b->begin;
    }
  };

  using FreeSet = std::set<Block*, BySize>;

  size_t size_of_block(size_t bytes) const;
  Block* take_free(size_t bytes);
  // A free block whose rest becomes one of its own, if that has `least_rest` bytes.
  Block* take(FreeSet::iterator it, size_t bytes, size_t least_rest);
  Block* grow(size_t bytes);
  Block* grow_range(size_t bytes);  // null: it cannot
  void trim_locked();
  void release_locked(char* p) noexcept;

  Raw raw_;
  const bool keep_;
  mutable std::mutex mutex_;
  BlockMap blocks_;  // every block by address; node addresses are stable
  FreeSet free_;
  std::map<size_t, std::pair<char*, size_t>> segments_;
  std::pair<char*, size_t> range_{};  // begin and bytes
  size_t next_segment_ = 1;
  bool holds_back_ = false;
  std::deque<char*> held_back_;  // in the order of their release
  AllocatorStats stats_;
};

// The host's allocator: huge pages where the system offers them, kept until trim().
CachingAllocator& host_allocator();

}  // namespace tessera
