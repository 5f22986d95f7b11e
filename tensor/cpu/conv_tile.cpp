// The f32 tiles, compiled once per CPU target.
#include "tensor/cpu/conv_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/conv_tile.cpp"
#include "tensor/cpu/highway.h"
// After highway.h, once per target, in this order:
#include "tensor/cpu/conv_f32-inl.h"
#include "tensor/cpu/conv_pack-inl.h"
#include "tensor/cpu/conv_tile-inl.h"
#include "tensor/cpu/conv_weight_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

void pack(float* dst, int64_t width, const float* src, int64_t column_step, int64_t k_step, int64_t columns, int64_t depth) {
  if (column_step == 1) return pack_columns(dst, width, src, k_step, columns, depth);
  const int64_t squares = k_step == 1 ? pack_transposed(dst, width, src, column_step, columns, depth) : 0;
  for (int64_t k = 0; k < depth; ++k) {
    float* out = dst + k * width;
    for (int64_t c = k < squares ? columns / 4 * 4 : 0; c < columns; ++c) out[c] = src[c * column_step + k * k_step];
    std::fill(out + columns, out + width, 0.0f);
  }
}

TileKernels<float> kernels() {
  return {{f32_tile::kWidth, f32_tile::kMaxVectors},
          f32_tile::run_row_job,
          f32_tile::run_weight_job,
          pack,
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          nullptr};
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#undef TESSERA_TILE
#undef TESSERA_TILE_BEGIN
#undef TESSERA_TILE_END

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(kernels);
template <>
TileKernels<float> tile_kernels<float>() {
  return HWY_DYNAMIC_DISPATCH(kernels)();
}

}  // namespace tessera::cpu
#endif
