#include "tensor/cpu/conv_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/conv_tile.cpp"
#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/conv_tile-inl.h"
#include "tensor/cpu/conv_weight_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

TileKernels kernels() { return {kWidth, kMaxVectors, run_row_job, run_weight_job, pack}; }

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(kernels);
TileKernels tile_kernels() { return HWY_DYNAMIC_DISPATCH(kernels)(); }

}  // namespace tessera::cpu
#endif
