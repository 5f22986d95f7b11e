// One owned buffer on one device; frees through the allocator it came from. Knows nothing of shapes.
#pragma once

#include <cstddef>
#include <memory>

#include "tensor/caching_allocator.h"
#include "tensor/device.h"

namespace tessera {

class Storage {
 public:
  Storage(Device device, size_t bytes, CachingAllocator& allocator);
  // Memory that somebody else owns (a mapped file, a caller's array); `owner` is kept alive.
  Storage(Device device, void* p, size_t bytes, std::shared_ptr<const void> owner);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() const { return p_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  Device device_;
  std::byte* p_;
  size_t bytes_;
  CachingAllocator* allocator_ = nullptr;  // null: memory of somebody else
  std::shared_ptr<const void> owner_;
};

}  // namespace tessera
