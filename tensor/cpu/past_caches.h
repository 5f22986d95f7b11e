// Which results are written past the caches.
#pragma once

#include <cstdint>

namespace tessera::cpu {

// Outputs from this size on are written past the caches: they would not survive in them until the next kernel reads them, and
// skipping the read of each line before it is overwritten saves a third of the traffic (docs/performance.md).
inline constexpr int64_t kStreamBytes = int64_t{16} << 20;

}  // namespace tessera::cpu
