#include "tests/cuda_host/shared_memory.h"

#include <cstring>

#include "tests/cuda_host/access.h"
#include "tests/cuda_host/machine.h"

namespace tessera::emulated {

namespace {

constexpr size_t kGuard = 128;  // bytes after each variable
constexpr size_t kDynamicAlignment = 1024;
constexpr uint8_t kCanary = 0xA5;
constexpr uint8_t kPoison = 0xFF;  // NaN, -1

}  // namespace

void SharedMemory::begin_launch(size_t dynamic_bytes) {
  regions_.clear();
  used_ = kDynamicAlignment;
  std::memset(arena_, kCanary, kDynamicAlignment);
  dynamic_ = add_region(dynamic_bytes, "dynamic shared memory");
}

void SharedMemory::begin_block() {
  for (const Region& r : regions_) std::memset(arena_ + r.begin, kPoison, r.bytes);
}

size_t SharedMemory::add_region(size_t bytes, const char* name) {
  const size_t begin = used_;
  const size_t end = begin + bytes;
  used_ = (end + kGuard + 127) / 128 * 128;
  if (used_ > kArena) {
    report("shared memory: '%s' of %zu bytes does not fit any more", name, bytes);
    abandon_launch();
  }
  regions_.push_back({begin, bytes, name});
  access_checker.add_region(begin, bytes, name);
  std::memset(arena_ + begin, kPoison, bytes);
  std::memset(arena_ + end, kCanary, used_ - end);
  return begin;
}

void* SharedMemory::variable(SharedSlot& slot, size_t bytes, size_t alignment, const char* name, uint64_t launch) {
  if (slot.launch != unsigned(launch)) {
    slot.launch = unsigned(launch);
    const size_t begin = (used_ + alignment - 1) / alignment * alignment;
    std::memset(arena_ + used_, kCanary, begin - used_);
    used_ = begin;
    slot.p = arena_ + add_region(bytes, name);
  }
  return slot.p;
}

void SharedMemory::check_guards() {
  for (size_t i = 0; i < regions_.size(); ++i) {
    const size_t end = regions_[i].begin + regions_[i].bytes;
    const size_t next_begin = i + 1 < regions_.size() ? regions_[i + 1].begin : used_;
    for (size_t at = end; at < next_begin; ++at) {
      if (arena_[at] == kCanary) continue;
      report("shared memory: byte %zu past the end of '%s' (%zu bytes) was written", at - end, regions_[i].name, regions_[i].bytes);
      std::memset(arena_ + end, kCanary, next_begin - end);
      break;
    }
  }
}

void SharedMemory::check_limits() {
  size_t all = 0;
  for (const Region& r : regions_) all += r.bytes;
  if (all > kTotal || all - regions_[0].bytes > kStatic) report("a block uses %zu bytes of shared memory", all);
}

}  // namespace tessera::emulated
