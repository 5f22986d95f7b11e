// How passes over rows are cut into chunks for threads: by the size of the problem alone.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tessera::cpu {

inline constexpr int64_t kChunkElements = 1 << 16;  // fits the L2 cache

// Elements of a chunk of `total`: where there are few, still some for every thread, but no less than a microsecond's work.
inline int64_t chunk_elements(int64_t total) { return std::clamp<int64_t>(total / 16, 1 << 13, kChunkElements); }

}  // namespace tessera::cpu
