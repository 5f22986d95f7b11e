// The numbers of a plan's key that conv_plan.cpp and gemm_plan.cpp take from views.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "tensor/base/check.h"

namespace tessera::cuda {

inline constexpr int32_t kPackBytes = 16;  // of the widest access to memory: more alignment than this changes nothing

inline int32_t size_in_key(int64_t size) {
  TESSERA_CHECK(size >= 0 && size <= INT32_MAX, "key of a plan: a size of {}, expected at most {}", size, INT32_MAX);
  return int32_t(size);
}

// Of an address, in bytes, at most kPackBytes.
inline int32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return address == 0 ? kPackBytes : std::min(kPackBytes, int32_t{1} << std::min(std::countr_zero(address), 30));
}

}  // namespace tessera::cuda
