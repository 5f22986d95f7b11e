// A range of host addresses whose memory grows and shrinks at its end, backed by huge pages where the system offers them.
#pragma once

#include <cstddef>

namespace tessera {

class HostRange {
 public:
  HostRange();  // reserves addresses, no memory; where even that is refused, extend() always fails
  ~HostRange();
  HostRange(const HostRange&) = delete;
  HostRange& operator=(const HostRange&) = delete;

  // `bytes`, a multiple of 2 MiB, more at the end of what there is. Returns where they begin, or null when the system refuses.
  void* extend(size_t bytes);
  void shrink(size_t bytes);  // gives that many back from the end
  size_t bytes() const { return used_; }

 private:
  char* memory_ = nullptr;  // what was mapped; begin_ is its first huge page
  char* begin_ = nullptr;
  size_t capacity_ = 0, used_ = 0;
};

}  // namespace tessera
