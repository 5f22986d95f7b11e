#include "tensor/cpu/conv_scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace tessera::cpu {

namespace {
struct Free {
  void operator()(float* p) const { std::free(p); }
};
}  // namespace

float* thread_scratch(int64_t floats) {
  thread_local std::unique_ptr<float, Free> memory;
  thread_local int64_t size = 0;
  if (floats > size) {
    const size_t bytes = (static_cast<size_t>(floats) * sizeof(float) + 4095) / 4096 * 4096;
    memory.reset();
    size = 0;
    memory.reset(static_cast<float*>(std::aligned_alloc(4096, bytes)));
    if (!memory) throw std::bad_alloc();
    size = floats;
  }
  return memory.get();
}

}  // namespace tessera::cpu
