// What this CPU reaches when nothing but arithmetic, or nothing but memory, is asked of it: the denominators of every "% of peak".
#pragma once

#include "tensor/dtype.h"

namespace tessera {

// Multiply-adds from registers on all compute threads with the active vector target, GFLOP/s (a multiply-add counts two): fused f32
// ones, or, for bf16 where the CPU multiplies it faster (cpu/conv_tile.h), those of pairs. The median of `runs` of about 30 ms.
double measure_multiply_add_gflops(DType type, int runs = 7);
// Copy of a buffer far larger than the caches, read plus written GB/s.
double measure_copy_gbytes();

}  // namespace tessera
