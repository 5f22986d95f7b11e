// Checks every access of kernels that are compiled with -fsanitize=thread: races between threads of a block and between blocks,
// reads of shared memory that nobody has written, and what lies outside shared variables and device buffers. The compiler calls
// __tsan_read4 and its like before each access; access.cpp defines them, and the thread sanitizer's own library is not used.
//
// What goes on by itself reports its own accesses: shared memory that a copy was begun into is nobody's until it was waited for, and
// what a product reads is read from its begin until it was waited for, and must have been published by who wrote it.
//
// Note [Order of accesses]: two accesses of one byte, one of them a write, are a race unless something orders them: a barrier of
// the block or of their warpgroup between them, or a __syncwarp() for lanes of one warp. So time is counted in intervals. A barrier
// begins a new one, the block and each warpgroup know since which one all theirs have met, and __syncwarp() begins a new one for the
// warp; each byte remembers its last write and its last read with their intervals.
// Atomics are in order with each other. What one block has written, no other may touch in the same launch, but for one way: a thread
// fences and then does an atomic on some word, and a thread of the other block does one on the same word later and fences then. What
// came before the first fence, by that thread or, with a barrier in between, by others of its block, is there after the second, for
// that thread or, after a barrier, for others of its block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tessera::emulated {

// kCopyBegins, kCopyIsThere: of one copy that goes on by itself, into shared memory; kProduct: a read by one.
enum class AccessKind : uint8_t { kRead, kWrite, kAtomic, kCopyBegins, kCopyIsThere, kProduct };

// The last read or write of one byte.
struct Access {
  uint32_t interval = 0;  // 0: none yet
  uint32_t warp_interval = 0;
  uint32_t place = 0;          // of the instruction, from the start of the program
  uint8_t warp = 0, lane = 0;  // kSeveral, kSeveralOfGroup + warpgroup: more than one read it in this interval
  bool atomic : 1 = false;
  bool other_blocks : 1 = false;  // a read by another block of this launch came before
  bool copying : 1 = false;       // a copy into it goes on
};
struct Shadow {
  Access write, read;
};

// What Machine tells about the launch. Everything of the emulator itself runs with in_kernel = false.
class AccessChecker {
 public:
  bool instrumented = false;  // some kernel is
  bool in_kernel = false;
  bool ahead = false;  // the thread that runs now was launched early and has not waited for the kernel before

  void memory(const uint8_t* arena, size_t arena_bytes, const std::byte* stacks, size_t stack_bytes);
  void begin_launch(const void* argument, size_t argument_bytes);
  void begin_block();
  void add_region(size_t begin, size_t bytes, const char* name);
  void barrier() { met_ = ++interval_; }
  void group_barrier(unsigned group) { group_met_[group] = ++interval_; }
  void warp_barrier(unsigned warp) { ++warp_interval_[warp]; }
  void set_thread(unsigned linear) { thread_ = linear; }
  void publish() { published_[thread_] = interval_; }
  void fence();
  void meet_others(const void* word);  // the running thread does an atomic on it

  void access(const void* p, size_t bytes, AccessKind kind, const void* from);

 private:
  struct Region {
    size_t begin, bytes;
    const char* name;
  };
  void shared(size_t offset, size_t bytes, AccessKind kind, uint32_t place);
  void device(const std::byte* p, size_t bytes, AccessKind kind, uint32_t place);
  const Access* conflict(const Shadow& s, AccessKind kind, uint32_t first) const;
  void remember(Shadow& s, AccessKind kind, uint32_t first, uint32_t place) const;
  bool unordered(const Access& before, uint32_t first) const;
  bool handed_over(const Access& before) const;
  std::string race(AccessKind kind, uint32_t place, const Shadow& s, const Access& before) const;

  const uint8_t* arena_ = nullptr;
  const std::byte *stacks_ = nullptr, *argument_ = nullptr;
  size_t arena_bytes_ = 0, stack_bytes_ = 0, argument_bytes_ = 0;
  std::vector<Region> regions_;
  std::vector<Shadow> shadow_;  // of the arena
  uint32_t interval_ = 1, block_began_ = 1, launch_began_ = 1;
  uint32_t met_ = 1, group_met_[8] = {};  // since which interval all of the block, or of the warpgroup, have
  uint32_t warp_interval_[32] = {};
  uint32_t published_[1024] = {};  // when each thread last did
  unsigned thread_ = 0;

  // What a block did from its beginning to a fence of one of its threads.
  struct Work {
    uint32_t began, fenced, met;  // met: before which interval all threads' work came before the fence
    unsigned thread;
  };
  // Work of other blocks, as the running one gets it: by an atomic of a thread, and for good with that thread's next fence.
  struct Received {
    Work work;
    unsigned thread;
    uint32_t fenced = 0;  // 0: not yet
  };
  uint32_t fenced_[1024] = {}, met_at_fence_[1024] = {};  // when each thread last did
  struct Word {
    const void* at;
    std::vector<Work> left;  // by those who did an atomic on it after a fence
  };
  std::vector<Word> words_;
  std::vector<Received> received_;
};
extern AccessChecker access_checker;

std::vector<std::string> function_names(const std::vector<const void*>& functions);  // as emulator.h has them

// A live buffer of cudaMalloc.
struct Buffer {
  std::byte* begin;
  size_t bytes;
  Shadow* shadow = nullptr;  // one for each byte, made at the first checked access
};
bool is_device_address(const void* p);
Buffer* buffer_before(const void* p);  // the last live one that begins at or before p, or null

}  // namespace tessera::emulated
