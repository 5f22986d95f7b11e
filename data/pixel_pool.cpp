#include "data/pixel_pool.h"

#include <iterator>
#include <map>
#include <mutex>
#include <new>

namespace tessera::pixel_pool {

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSmallest = size_t(64) << 10;  // below, the heap is as good
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kLimit = 0;  // the sanitizer must see every block go
#else
constexpr size_t kLimit = kMaxKept;
#endif

// In front of every block.
struct alignas(kAlignment) Header {
  size_t capacity;
};

struct Pool {
  std::mutex mutex;
  std::multimap<size_t, Header*> blocks;  // by capacity
  Statistics statistics;
};

// Never destroyed: images may outlive static objects.
Pool& pool() {
  static Pool* const the_pool = new Pool;
  return *the_pool;
}

void give_back(Header* header) noexcept { ::operator delete(header, std::align_val_t(kAlignment)); }

}  // namespace

void* allocate(size_t bytes) {
  if (bytes >= kSmallest) {
    Pool& p = pool();
    std::lock_guard lock(p.mutex);
    auto found = p.blocks.lower_bound(bytes);
    if (found != p.blocks.end() && found->first <= bytes + bytes / 4) {
      found = std::prev(p.blocks.upper_bound(found->first));  // of equal ones the last that came: it may still be in a cache
      Header* const header = found->second;
      p.blocks.erase(found);
      --p.statistics.kept_blocks;
      p.statistics.kept_bytes -= header->capacity;
      ++p.statistics.reused;
      return header + 1;
    }
    ++p.statistics.fresh;
  }
  auto* const header = static_cast<Header*>(::operator new(sizeof(Header) + bytes, std::align_val_t(kAlignment)));
  header->capacity = bytes;
  return header + 1;
}

void release(void* block) noexcept {
  if (block == nullptr) return;
  Header* const header = static_cast<Header*>(block) - 1;
  if (header->capacity >= kSmallest && header->capacity <= kLimit) {
    Pool& p = pool();
    try {
      std::lock_guard lock(p.mutex);
      if (p.statistics.kept_bytes + header->capacity <= kLimit) {
        p.blocks.emplace(header->capacity, header);
        ++p.statistics.kept_blocks;
        p.statistics.kept_bytes += header->capacity;
        return;
      }
    } catch (...) {  // no memory for the entry: the block goes back instead
    }
  }
  give_back(header);
}

Statistics statistics() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  return p.statistics;
}

}  // namespace tessera::pixel_pool
