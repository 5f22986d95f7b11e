// An allocator whose vectors leave new elements as they are, in memory of the pixel pool: large buffers are written once, not cleared
// first.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "data/pixel_pool.h"

namespace tessera {

template <class T>
struct UninitializedAllocator {
  static_assert(std::is_trivially_destructible_v<T>);
  using value_type = T;
  using is_always_equal = std::true_type;

  UninitializedAllocator() = default;
  template <class U>
  UninitializedAllocator(const UninitializedAllocator<U>&) noexcept {}

  T* allocate(size_t n) {
    if (n > std::numeric_limits<size_t>::max() / 2 / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(pixel_pool::allocate(n * sizeof(T)));
  }
  void deallocate(T* p, size_t) noexcept { pixel_pool::release(p); }

  template <class U>
  void construct(U* p) noexcept {
    ::new (static_cast<void*>(p)) U;  // default-initialised: no write
  }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {
    ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }
  friend bool operator==(const UninitializedAllocator&, const UninitializedAllocator&) { return true; }
};

}  // namespace tessera
