// The f32 tiles, compiled once per CPU target.
#include "tensor/cpu/conv_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/conv_tile.cpp"
#include "tensor/cpu/highway.h"
// After highway.h, once per target, in this order:
#include "tensor/cpu/conv_f32-inl.h"
#include "tensor/cpu/conv_tile-inl.h"
#include "tensor/cpu/conv_weight_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

// dst[i * width + c] = src[c * step + i] for i, c < 4.
HWY_INLINE void transpose4(float* dst, int64_t width, const float* src, int64_t step) {
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pairs;
  const auto a0 = hn::LoadU(d, src), a1 = hn::LoadU(d, src + step), a2 = hn::LoadU(d, src + 2 * step),
             a3 = hn::LoadU(d, src + 3 * step);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, a0, a1)),
             high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, a0, a1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, a2, a3)),
             high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, a2, a3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, dst);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, dst + width);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, dst + 2 * width);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, dst + 3 * width);
}

void pack(float* dst, int64_t width, const float* src, int64_t column_step, int64_t k_step, int64_t columns, int64_t depth) {
  if (column_step == 1) {
    for (int64_t k = 0; k < depth; ++k, dst += width, src += k_step) {
      std::copy_n(src, columns, dst);
      std::fill(dst + columns, dst + width, 0.0f);
    }
    return;
  }
  const int64_t depth4 = k_step == 1 ? depth / 4 * 4 : 0;  // in squares of 4
  const int64_t columns4 = columns / 4 * 4;
  for (int64_t line = 0; line < depth4; line += kLine<float>) {
    for (int64_t c = 0; c < columns4; c += 4) {
      const float* from = src + c * column_step;
      for (int64_t i = 0; i < 4; ++i) __builtin_prefetch(from + i * column_step + line + 2 * kLine<float>);
      for (int64_t k = line; k < std::min(depth4, line + kLine<float>); k += 4)
        transpose4(dst + k * width + c, width, from + k, column_step);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    float* out = dst + k * width;
    for (int64_t c = k < depth4 ? columns4 : 0; c < columns; ++c) out[c] = src[c * column_step + k * k_step];
    std::fill(out + columns, out + width, 0.0f);
  }
}

TileKernels<float> kernels() {
  return {
      {f32_tile::kWidth, f32_tile::kMaxVectors}, f32_tile::run_row_job, f32_tile::run_weight_job, pack, nullptr, nullptr, nullptr};
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
