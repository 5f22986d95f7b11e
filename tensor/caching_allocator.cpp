#include "tensor/caching_allocator.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "tensor/base/check.h"
#include "tensor/host_range.h"

namespace tessera {

namespace {
constexpr size_t kAlign = 64;
constexpr size_t kLarge = size_t{1} << 20;
constexpr size_t kSmallSegment = size_t{4} << 20;  // small blocks share segments of this size
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRange = 0;                           // as a segment
constexpr size_t kUnit = size_t{64} << 10;             // of the range: blocks are cut to whole ones, and any rest merges again

size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGuard = kAlign;
void permit(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
void forbid(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
#else
constexpr size_t kGuard = 0;
void permit(const void*, size_t) {}
void forbid(const void*, size_t) {}
#endif
}  // namespace

CachingAllocator::CachingAllocator(Raw raw, bool keep) : raw_(std::move(raw)), keep_(keep) {}

CachingAllocator::~CachingAllocator() {
  for (const auto& [id, segment] : segments_) {
    permit(segment.first, segment.second);
    raw_.release(segment.first, segment.second);
  }
  if (range_.second > 0) {
    permit(range_.first, range_.second);
    raw_.shrink(range_.second);
  }
}

size_t CachingAllocator::size_of_block(size_t bytes) const {
  bytes += raw_.guard;
  if (!keep_) return std::max<size_t>(bytes, 1);
  if (bytes < kLarge) return std::max(round_up(bytes, kAlign), kAlign);
  return round_up(bytes, raw_.extend ? kUnit : std::bit_floor(bytes) / 8);
}

CachingAllocator::Block* CachingAllocator::take_free(size_t bytes) {
  Block key{nullptr, bytes, 0, true};
  const bool small = bytes < kLarge;
  const auto from = free_.lower_bound(&key);
  auto first = free_.end();  // of the range
  for (auto it = from; !small && it != free_.end(); ++it) {
    if ((*it)->segment != kRange) continue;
    if (first == free_.end() || (*it)->begin < (*first)->begin) first = it;
    if ((*it)->bytes == bytes) break;
  }
  if (first != free_.end()) return take(first, bytes, kUnit);
  for (auto it = from; it != free_.end(); ++it) {
    const Block* block = *it;
    const size_t rest = block->bytes - bytes;
    // A small block may not pin a large segment, and a large one is cut only when the rest stays useful.
    if (small && block->bytes > kSmallSegment) return nullptr;
    if (block->segment == kRange) continue;
    const size_t least = small ? kAlign : kLarge;
    // A block no larger than the segment that grow() would make is taken in any case, or every such request would grow.
    if (rest < least && rest > bytes / 4 && block->bytes > round_up(bytes, kHugePage)) continue;
    return take(it, bytes, least);
  }
  return nullptr;
}

CachingAllocator::Block* CachingAllocator::take(FreeSet::iterator it, size_t bytes, size_t least_rest) {
  Block* block = *it;
  free_.erase(it);
  if (const size_t rest = block->bytes - bytes; rest >= least_rest) {
    char* tail = block->begin + bytes;
    const auto [pos, inserted] = blocks_.emplace(tail, Block{tail, rest, block->segment, true});
    block->bytes = bytes;
    free_.insert(&pos->second);
  }
  return block;
}

CachingAllocator::Block* CachingAllocator::grow(size_t bytes) {
  const size_t segment_bytes = !keep_ ? bytes : bytes < kLarge ? kSmallSegment : round_up(bytes, kHugePage);
  if (keep_ && bytes >= kLarge && raw_.extend) {
    if (Block* block = grow_range(bytes)) return block;
  }
  void* p = raw_.allocate(segment_bytes);
  if (p == nullptr) {
    trim_locked();
    p = raw_.allocate(segment_bytes);
  }
  if (p == nullptr) {
    throw Error(ErrorCode::kMemory,
                fmt::format("out of memory: {:.1f} MiB asked for, {:.1f} MiB in use, {:.1f} MiB reserved", double(bytes) / 0x1p20,
                            double(stats_.bytes_in_use) / 0x1p20, double(stats_.bytes_reserved) / 0x1p20),
                {}, "use a smaller batch or image size");
  }
  const size_t id = next_segment_++;
  char* begin = static_cast<char*>(p);
  forbid(begin, segment_bytes);
  segments_.emplace(id, std::pair{begin, segment_bytes});
  stats_.bytes_reserved += int64_t(segment_bytes);
  stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.bytes_reserved);
  const auto [pos, inserted] = blocks_.emplace(begin, Block{begin, segment_bytes, id, true});
  free_.insert(&pos->second);
  Block* block = take_free(bytes);
  if (block == nullptr) {  // the rounding of the segment left too large a rest to waste, too small to split
    block = &pos->second;
    free_.erase(block);
  }
  return block;
}

CachingAllocator::Block* CachingAllocator::grow_range(size_t bytes) {
  // The end of the range may be free already, only too small.
  auto last = range_.second > 0 ? std::prev(blocks_.lower_bound(range_.first + range_.second)) : blocks_.end();
  if (last != blocks_.end() && !last->second.free) last = blocks_.end();
  const size_t there = last == blocks_.end() ? 0 : last->second.bytes;
  const size_t more = round_up(bytes - there, kHugePage);
  char* begin = static_cast<char*>(raw_.extend(more));
  if (begin == nullptr) return nullptr;
  forbid(begin, more);
  if (range_.second == 0) range_.first = begin;
  range_.second += more;
  stats_.bytes_reserved += int64_t(more);
  stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.bytes_reserved);
  if (last == blocks_.end()) {
    last = blocks_.emplace(begin, Block{begin, more, kRange, true}).first;
  } else {
    free_.erase(&last->second);
    last->second.bytes += more;
  }
  free_.insert(&last->second);
  Block* block = take_free(bytes);
  TESSERA_CHECK(block != nullptr, "CachingAllocator: no block after growing");
  return block;
}

void* CachingAllocator::allocate(size_t bytes) {
  const size_t size = size_of_block(bytes);
  std::lock_guard lock(mutex_);
  ++stats_.allocations;
  Block* block = take_free(size);
  if (block != nullptr) {
    ++stats_.cache_hits;
  } else {
    block = grow(size);
  }
  block->free = false;
  stats_.bytes_in_use += int64_t(block->bytes);
  stats_.peak_in_use = std::max(stats_.peak_in_use, stats_.bytes_in_use);
  permit(block->begin, bytes);
  return block->begin;
}

void CachingAllocator::release(void* p) noexcept {
  if (p == nullptr) return;
  std::lock_guard lock(mutex_);
  if (holds_back_) {
    held_back_.push_back(static_cast<char*>(p));
  } else {
    release_locked(static_cast<char*>(p));
  }
}

void CachingAllocator::release_locked(char* p) noexcept {
  auto it = blocks_.find(p);
  if (it == blocks_.end() || it->second.free) std::abort();  // not ours, or freed twice
  it->second.free = true;
  forbid(it->second.begin, it->second.bytes);
  stats_.bytes_in_use -= int64_t(it->second.bytes);
  auto merge_into = [&](BlockMap::iterator left, BlockMap::iterator right) {
    left->second.bytes += right->second.bytes;
    blocks_.erase(right);
  };
  if (auto next = std::next(it); next != blocks_.end() && next->second.free && next->second.segment == it->second.segment) {
    free_.erase(&next->second);
    merge_into(it, next);
  }
  if (it != blocks_.begin()) {
    if (auto prev = std::prev(it); prev->second.free && prev->second.segment == it->second.segment) {
      free_.erase(&prev->second);
      merge_into(prev, it);
      it = prev;
    }
  }
  free_.insert(&it->second);
  if (!keep_) trim_locked();
}

void CachingAllocator::trim_locked() {
  if (range_.second > 0) {
    const auto last = std::prev(blocks_.lower_bound(range_.first + range_.second));
    if (last->second.free) {
      // What the last block in use leaves of its huge page stays.
      const size_t keep = std::min(last->second.bytes, round_up(size_t(last->second.begin - range_.first), kHugePage) -
                                                           size_t(last->second.begin - range_.first));
      const size_t less = last->second.bytes - keep;
      free_.erase(&last->second);
      permit(last->second.begin + keep, less);
      if (keep > 0) {
        last->second.bytes = keep;
        free_.insert(&last->second);
      } else {
        blocks_.erase(last);
      }
      if (less > 0) raw_.shrink(less);
      range_.second -= less;
      stats_.bytes_reserved -= int64_t(less);
    }
  }
  for (auto it = segments_.begin(); it != segments_.end();) {
    const auto [begin, bytes] = it->second;
    const auto block = blocks_.find(begin);
    if (block->second.free && block->second.bytes == bytes) {
      free_.erase(&block->second);
      blocks_.erase(block);
      permit(begin, bytes);
      raw_.release(begin, bytes);
      stats_.bytes_reserved -= int64_t(bytes);
      it = segments_.erase(it);
    } else {
      ++it;
    }
  }
}

void CachingAllocator::trim() {
  std::lock_guard lock(mutex_);
  trim_locked();
}

void CachingAllocator::hold_back() {
  std::lock_guard lock(mutex_);
  holds_back_ = true;
}

size_t CachingAllocator::held_back() const {
  std::lock_guard lock(mutex_);
  return held_back_.size();
}

void CachingAllocator::let_go(size_t count) {
  std::lock_guard lock(mutex_);
  for (; count > 0; --count, held_back_.pop_front()) release_locked(held_back_.front());
}

void CachingAllocator::let_go() {
  std::lock_guard lock(mutex_);
  holds_back_ = false;
  for (char* p : std::exchange(held_back_, {})) release_locked(p);
}

AllocatorStats CachingAllocator::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void CachingAllocator::reset_peaks() {
  std::lock_guard lock(mutex_);
  stats_.peak_in_use = stats_.bytes_in_use;
  stats_.peak_reserved = stats_.bytes_reserved;
}

CachingAllocator& host_allocator() {
  // Never destroyed: tensors in static storage may outlive any order of destruction.
  static auto* const range = new HostRange;
  static auto* const allocator = new CachingAllocator({
      [](size_t bytes) -> void* {
        void* p = nullptr;
        if (posix_memalign(&p, bytes >= kHugePage ? kHugePage : kAlign, bytes) != 0) return nullptr;
        return p;
      },
      [](void* p, size_t) { std::free(p); },
      kGuard,
      [](size_t bytes) { return range->extend(bytes); },
      [](size_t bytes) { range->shrink(bytes); },
  });
  return *allocator;
}

}  // namespace tessera
