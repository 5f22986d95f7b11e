// Which unit multiplies bf16 in the rows of convolutions and products.
#pragma once

#include <cstdint>

namespace tessera::cpu {

enum class TileUnit {
  kVectors,  // VDPBF16PS
  kAmx,      // the tiles of Intel's AMX
  kTwin,     // plain code in their place, for tests
};

// Whether CPU and system let this process use AMX. Asked once.
bool has_amx();

// AMX where there is any and its products are right (a first one is compared with the vectors', and a line says so if it is not),
// unless something else was forced: TESSERA_CPU_BACKEND=avx512 forces vectors.
TileUnit tile_unit();
void force_tile_unit(TileUnit unit);

// Products of tiles in registers; returns the floating-point operations done. Only where has_amx().
double amx_loop(int64_t rounds);

}  // namespace tessera::cpu
