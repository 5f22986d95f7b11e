#include "tensor/host_range.h"

#include <sys/mman.h>

#include <cstdint>

namespace tessera {

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMost = size_t{16} << 40;  // more than any machine has
constexpr size_t kLeast = size_t{1} << 30;  // below it a range is not worth having
}  // namespace

HostRange::HostRange() {
  // A limit on address space (ulimit -v) may allow less.
  for (size_t bytes = kMost; bytes >= kLeast; bytes /= 4) {
    void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    memory_ = static_cast<char*>(p);
    const size_t skipped = (kHugePage - reinterpret_cast<uintptr_t>(p) % kHugePage) % kHugePage;
    begin_ = memory_ + skipped;
    capacity_ = bytes - skipped;
    return;
  }
}

HostRange::~HostRange() {
  if (memory_ != nullptr) munmap(memory_, capacity_ + size_t(begin_ - memory_));
}

void* HostRange::extend(size_t bytes) {
  if (bytes > capacity_ - used_) return nullptr;
  char* p = begin_ + used_;
  if (mprotect(p, bytes, PROT_READ | PROT_WRITE) != 0) return nullptr;
  madvise(p, bytes, MADV_HUGEPAGE);
  used_ += bytes;
  return p;
}

void HostRange::shrink(size_t bytes) {
  used_ -= bytes;
  madvise(begin_ + used_, bytes, MADV_DONTNEED);
  mprotect(begin_ + used_, bytes, PROT_NONE);
}

}  // namespace tessera
