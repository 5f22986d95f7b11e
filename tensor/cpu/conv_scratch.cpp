#include "tensor/cpu/conv_scratch.h"

#include <sys/mman.h>

#include <new>

namespace tessera::cpu {

namespace {

// Pages of the system's own: what a thread's heap has freed while this grew, it would keep.
struct Held {
  void* memory = nullptr;
  size_t bytes = 0;
  ~Held() { release(); }
  void release() {
    if (memory != nullptr) munmap(memory, bytes);
    memory = nullptr;
    bytes = 0;
  }
};
thread_local Held held;

}  // namespace

void* thread_scratch_bytes(size_t bytes) {
  if (bytes > held.bytes) {
    bytes = (bytes + 4095) / 4096 * 4096;
    held.release();
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    held.memory = p;
    held.bytes = bytes;
  }
  return held.memory;
}

size_t thread_scratch_held() { return held.bytes; }

}  // namespace tessera::cpu
