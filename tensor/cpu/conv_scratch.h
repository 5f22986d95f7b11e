// Temporary memory of the convolution kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/caching_allocator.h"

namespace tessera::cpu {

// Values of T from the host allocator for the time of one call; 64-byte aligned.
template <class T>
class HostScratch {
 public:
  explicit HostScratch(int64_t count)
      : p_(static_cast<T*>(host_allocator().allocate(static_cast<size_t>(count > 0 ? count : 1) * sizeof(T)))) {}
  ~HostScratch() { host_allocator().release(p_); }
  HostScratch(const HostScratch&) = delete;
  HostScratch& operator=(const HostScratch&) = delete;
  T* get() const { return p_; }

 private:
  T* p_;
};

// Memory that belongs to the calling thread until it asks again; 64-byte aligned.
void* thread_scratch_bytes(size_t bytes);
size_t thread_scratch_held();  // by the calling thread
template <class T>
T* thread_scratch(int64_t count) {
  return static_cast<T*>(thread_scratch_bytes(static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace tessera::cpu
