// What the system says about this process's and the machine's memory.
#pragma once

#include <cstdint>

namespace tessera {

int64_t peak_resident_bytes();    // high-water mark of this process
int64_t resident_bytes();         // now
int64_t available_memory_bytes(); // what could be allocated without swapping, cgroup limit included; 0 when unknown

}  // namespace tessera
