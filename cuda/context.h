// The device in use, the stream that work of this thread goes to, and short-lived device memory of the kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>

#include "tensor/caching_allocator.h"

namespace tessera::cuda {

struct DeviceInfo {
  int index = 0;
  std::string name;          // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  size_t total_bytes = 0;
};

int device_count();                     // Error(kUsage) in the driver's words when there is no driver or no device
DeviceInfo describe_device(int index);  // Error(kUsage): no such device
void use_device(int index);             // of the calling thread, and what device() returns from now on
const DeviceInfo& device();             // the one in use

// Work of the calling thread goes to this stream, in order.
cudaStream_t current_stream();

// The current stream records what it is given, for a CUDA graph: nothing may wait for it.
bool recording();

// Work of this thread goes to another stream as long as the guard lives.
class StreamGuard {
 public:
  explicit StreamGuard(cudaStream_t stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  cudaStream_t previous_;
};

void synchronize();  // waits for the current stream

int64_t free_bytes();  // of the device in use, what its driver could still hand out

// Bytes between host and device. The host's memory may be reused on return.
void upload(void* device, const void* host, size_t bytes);
void download(void* host, const void* device, size_t bytes);  // waits for what was started before it

// One value that a kernel has left on the device; waits for it.
template <class T>
T fetch(const T* device) {
  T value;
  download(&value, device, sizeof(T));
  return value;
}

// Device and pinned host memory behind the framework's cache; neither is ever destroyed, tensors in static storage may outlive
// the driver. Out of memory is Error(kMemory).
CachingAllocator& device_allocator();  // of this thread: within an AllocatorGuard that one
CachingAllocator& pinned_allocator();

// All device memory of this thread comes from another allocator as long as the guard lives.
class AllocatorGuard {
 public:
  explicit AllocatorGuard(CachingAllocator& allocator);
  ~AllocatorGuard();
  AllocatorGuard(const AllocatorGuard&) = delete;
  AllocatorGuard& operator=(const AllocatorGuard&) = delete;

 private:
  CachingAllocator* previous_;
};

// Device memory as the driver gives it; null when there is none left.
void* raw_device_memory(size_t bytes);

// `count` elements of device memory for the partial results of a kernel. It may go out of scope as soon as the kernels are
// launched: whoever gets the memory next works after them on the same stream.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : allocator_(device_allocator()), p_(static_cast<T*>(allocator_.allocate(size_t(count) * sizeof(T)))) {}
  ~Scratch() { allocator_.release(p_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return p_; }

 private:
  CachingAllocator& allocator_;
  T* p_;
};

}  // namespace tessera::cuda
