// Includes Highway for a file that is compiled once per CPU target. Define HWY_TARGET_INCLUDE (the file's own path) first.
// The targets are AVX2 and AVX-512: AVX2 is declared the baseline, so no slower variant is generated; install_cpu_backends() sees
// to it that no kernel is called on a CPU without AVX2.
//
// No include guard: foreach_target.h includes the calling file again for each target, highway.h must follow it each time.
#ifndef HWY_BASELINE_TARGETS
#define HWY_BASELINE_TARGETS HWY_AVX2
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#endif
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
