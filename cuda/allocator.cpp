// Raw memory for the caching allocator: cudaMalloc for the device, cudaMallocHost for the host side of copies.
#include "cuda/check.h"
#include "cuda/context.h"
#include "tensor/base/env.h"

namespace tessera::cuda {

namespace {
// Null when there is no memory left, as the cache expects: it gives back what it holds and asks again.
void* or_null(cudaError_t error, void* p, const char* call) {
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return nullptr;
  }
  check(error, call);
  return p;
}

void* pinned_memory(size_t bytes) {
  void* p = nullptr;
  const cudaError_t error = cudaMallocHost(&p, bytes);
  return or_null(error, p, "cudaMallocHost");
}

thread_local CachingAllocator* of_guard = nullptr;  // of the innermost AllocatorGuard
}  // namespace

void* raw_device_memory(size_t bytes) {
  void* p = nullptr;
  const cudaError_t error = cudaMalloc(&p, bytes);
  return or_null(error, p, "cudaMalloc");
}

AllocatorGuard::AllocatorGuard(CachingAllocator& allocator) : previous_(of_guard) { of_guard = &allocator; }
AllocatorGuard::~AllocatorGuard() { of_guard = previous_; }

// Giving back never throws: it runs in destructors, also after an error that makes every further call fail.
CachingAllocator& device_allocator() {
  if (of_guard != nullptr) return *of_guard;
  static CachingAllocator* const allocator = new CachingAllocator({raw_device_memory, [](void* p, size_t) { (void)cudaFree(p); }},
                                                                  env("TESSERA_CUDA_CACHE").value_or("1") != "0");
  return *allocator;
}

CachingAllocator& pinned_allocator() {
  static CachingAllocator* const allocator = new CachingAllocator({pinned_memory, [](void* p, size_t) { (void)cudaFreeHost(p); }});
  return *allocator;
}

}  // namespace tessera::cuda
