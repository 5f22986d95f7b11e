// Calls whose results nobody reads for a while, as the gradients of weights in a backward pass: a device may make them beside those
// that come after, up to Backend::join_calls_beside(). What they read must not be written meanwhile; its memory may be released.
#pragma once

#include "tensor/caching_allocator.h"

namespace tessera {

// The calls of this thread are such, where the backend knows how.
class BesideGuard {
 public:
  BesideGuard();
  ~BesideGuard();
  BesideGuard(const BesideGuard&) = delete;
  BesideGuard& operator=(const BesideGuard&) = delete;
  static bool here();

 private:
  bool previous_;
};

// Memory that is released while calls beside may read it: it is used again only when they have been waited for, in groups, so that
// there are few waits, each of them for calls that are long over.
class BesideMemory {
 public:
  BesideMemory(CachingAllocator& allocator, int calls_of_group) : allocator_(allocator), calls_of_group_(calls_of_group) {}
  ~BesideMemory() { joined(); }
  BesideMemory(const BesideMemory&) = delete;
  BesideMemory& operator=(const BesideMemory&) = delete;

  void begin();  // before a call beside: from here on memory is held back
  // After it. True: it was the last of a group. What comes next waits for the group before, and what was released up to the end of
  // that is free.
  bool end();
  void joined();  // all calls are over

 private:
  CachingAllocator& allocator_;
  const int calls_of_group_;
  int calls_ = 0;      // of the group that has begun
  size_t before_ = 0;  // blocks that were held back when the group before was complete
};

}  // namespace tessera
