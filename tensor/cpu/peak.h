// What this CPU reaches when nothing but arithmetic, or nothing but memory, is asked of it: the denominators of every "% of peak".
#pragma once

namespace tessera {

// Fused multiply-adds from registers on all compute threads with the active vector target, GFLOP/s (a multiply-add counts two).
// The median of seven runs of about 30 ms.
double measure_fma_gflops();
// Copy of a buffer far larger than the caches, read plus written GB/s.
double measure_copy_gbytes();

}  // namespace tessera
