// What holds for plans of every vendor's library, and how they are timed.
#pragma once

#include <cstddef>
#include <functional>

namespace tessera::cuda::vendor {

size_t most_workspace();  // bytes of scratch memory for one call: TESSERA_WORKSPACE, in MiB; 256 without it
bool deterministic();     // TESSERA_DETERMINISTIC: no plan is chosen by time, and none that may sum in another order the next time
bool tf32();              // TESSERA_TF32: factors of f32 products may be rounded to 10 bits

// The least time of several runs of work that goes to the current stream, by the host's clock; waits for the device. Not during
// capture.
double least_seconds(const std::function<void()>& start);

}  // namespace tessera::cuda::vendor
