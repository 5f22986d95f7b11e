// Gives cached memory back at both ends of a scope, so that two phases that need blocks of different sizes do not keep the sum of
// both.
#pragma once

#include "tensor/caching_allocator.h"

namespace tessera {

class MemoryTrim {
 public:
  explicit MemoryTrim(CachingAllocator& cache) : cache_(cache) { trim(); }
  ~MemoryTrim() { trim(); }
  MemoryTrim(const MemoryTrim&) = delete;
  MemoryTrim& operator=(const MemoryTrim&) = delete;

 private:
  // Small caches stay, as touching fresh pages costs more than they save.
  void trim() const {
    if (cache_.stats().bytes_reserved > int64_t{1} << 30) cache_.trim();
  }
  CachingAllocator& cache_;
};

}  // namespace tessera
