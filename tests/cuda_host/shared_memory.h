// Shared memory of the running block: its variables one after the other, with guards between them that show what is written past one.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera::emulated {

class SharedMemory {
 public:
  static constexpr size_t kTotal = 227 << 10;  // limits of the hardware
  static constexpr size_t kStatic = 48 << 10;
  static constexpr size_t kArena = 512 << 10;  // with the guards

  const uint8_t* arena() const { return arena_; }
  void begin_launch(size_t dynamic_bytes);
  void begin_block();  // nobody has written anything
  void* variable(SharedSlot& slot, size_t bytes, size_t alignment, const char* name, uint64_t launch);
  void* dynamic() { return arena_ + dynamic_; }
  void check_guards();
  void check_limits();  // at the end of a launch

 private:
  struct Region {
    size_t begin, bytes;
    const char* name;
  };
  size_t add_region(size_t bytes, const char* name);

  alignas(1024) uint8_t arena_[kArena];
  size_t used_ = 0, dynamic_ = 0;
  std::vector<Region> regions_;
};

}  // namespace tessera::emulated
