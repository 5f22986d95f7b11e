// What holds for plans of every vendor's library, and how they are timed.
#pragma once

#include <cstddef>
#include <functional>

namespace tessera::cuda::vendor {

inline constexpr size_t kDefaultWorkspace = size_t{256} << 20;
inline constexpr double kDefaultPlanSeconds = 20;

size_t most_workspace();  // bytes of scratch memory for one call: TESSERA_WORKSPACE, in MiB, or kDefaultWorkspace
bool deterministic();     // TESSERA_DETERMINISTIC: no plan is chosen by time, and none that may sum in another order the next time
bool tf32();              // TESSERA_TF32: factors of f32 products may be rounded to 10 bits
double plan_seconds();    // TESSERA_PLAN_SECONDS or kDefaultPlanSeconds: after so long no new convolution is planned

// The least time of several runs of work that goes to the current stream, by the host's clock; waits for the device. Not during
// capture. Work that takes much longer than `hopeless` is timed once.
double least_seconds(const std::function<void()>& start, double hopeless);

}  // namespace tessera::cuda::vendor
