// Memory of images: large blocks that are given back are kept and handed out again. A loader makes and drops some megabytes for
// every sample; from the system each of them would arrive as cleared pages, which costs more than the work on the pixels.
#pragma once

#include <cstddef>

namespace tessera::pixel_pool {

// At most so many bytes are kept while nobody uses them.
constexpr size_t kMaxKept = size_t(64) << 20;

// `bytes` of uninitialised memory, aligned to 64. Throws std::bad_alloc. From any thread.
void* allocate(size_t bytes);
void release(void* block) noexcept;

struct Statistics {
  size_t kept_bytes = 0, kept_blocks = 0, reused = 0, fresh = 0;
};
Statistics statistics();

}  // namespace tessera::pixel_pool
