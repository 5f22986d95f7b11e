// An allocator whose vectors leave new elements as they are: large pixel buffers are written once, not cleared first.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace tessera {

template <class T>
struct UninitializedAllocator : std::allocator<T> {
  static_assert(std::is_trivially_destructible_v<T>);
  template <class U>
  struct rebind {
    using other = UninitializedAllocator<U>;
  };
  template <class U>
  void construct(U* p) noexcept {
    ::new (static_cast<void*>(p)) U;  // default-initialised: no write
  }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {
    ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }
};

}  // namespace tessera
