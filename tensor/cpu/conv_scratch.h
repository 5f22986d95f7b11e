// Temporary memory of the convolution kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/caching_allocator.h"

namespace tessera::cpu {

// Floats from the host allocator for the time of one call; 64-byte aligned.
class HostScratch {
 public:
  explicit HostScratch(int64_t floats)
      : p_(static_cast<float*>(host_allocator().allocate(static_cast<size_t>(floats > 0 ? floats : 1) * sizeof(float)))) {}
  ~HostScratch() { host_allocator().release(p_); }
  HostScratch(const HostScratch&) = delete;
  HostScratch& operator=(const HostScratch&) = delete;
  float* get() const { return p_; }

 private:
  float* p_;
};

// At least `floats` floats that belong to the calling thread until it asks again; 64-byte aligned.
float* thread_scratch(int64_t floats);

}  // namespace tessera::cpu
