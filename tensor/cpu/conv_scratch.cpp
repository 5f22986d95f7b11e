#include "tensor/cpu/conv_scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace tessera::cpu {

namespace {
struct Free {
  void operator()(void* p) const { std::free(p); }
};
}  // namespace

void* thread_scratch_bytes(size_t bytes) {
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t size = 0;
  if (bytes > size) {
    bytes = (bytes + 4095) / 4096 * 4096;
    memory.reset();
    size = 0;
    memory.reset(std::aligned_alloc(4096, bytes));
    if (!memory) throw std::bad_alloc();
    size = bytes;
  }
  return memory.get();
}

}  // namespace tessera::cpu
