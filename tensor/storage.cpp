#include "tensor/storage.h"

#include <utility>

namespace tessera {

Storage::Storage(Device device, size_t bytes, CachingAllocator& allocator)
    : device_(device), p_(static_cast<std::byte*>(allocator.allocate(bytes))), bytes_(bytes), allocator_(&allocator) {}

Storage::Storage(Device device, void* p, size_t bytes, std::shared_ptr<const void> owner)
    : device_(device), p_(static_cast<std::byte*>(p)), bytes_(bytes), owner_(std::move(owner)) {}

Storage::~Storage() {
  if (allocator_ != nullptr) allocator_->release(p_);
}

}  // namespace tessera
