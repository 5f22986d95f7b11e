// What the system says about this process's and the machine's memory.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

int64_t peak_resident_bytes();  // high-water mark of this process
int64_t resident_bytes();       // now

// Lines of a set of the L1 data cache; 8 where the system does not say.
int64_t l1_cache_ways();

struct MemoryLimit {
  int64_t bytes = 0;  // what could be allocated beyond what is held now; 0: unknown or nothing
  std::string what;   // the limit that counts: "this machine", "the cgroup", "ulimit -v", "TESSERA_MEMORY"
};

// The smallest of: MemAvailable of the machine (without swap); the memory limit of the control group and of those above it, less
// what is used there and cannot be dropped (version 2, and 1); the address-space limit. TESSERA_MEMORY stands for all of them.
MemoryLimit available_memory();
inline int64_t available_memory_bytes() { return available_memory().bytes; }

}  // namespace tessera
