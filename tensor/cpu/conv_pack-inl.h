// Compiled once per CPU target: weights of 32 bits, or pairs of 16, in the order of the register tile (RowJob::w).
#include <algorithm>

#include "hwy/highway.h"

#if defined(TESSERA_TENSOR_CPU_CONV_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_TENSOR_CPU_CONV_PACK_INL_H_
#undef TESSERA_TENSOR_CPU_CONV_PACK_INL_H_
#else
#define TESSERA_TENSOR_CPU_CONV_PACK_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// dst[k * width + c] = src[k * k_step + c] for c < columns, zero up to width.
HWY_INLINE void pack_columns(float* dst, int64_t width, const float* src, int64_t k_step, int64_t columns, int64_t depth) {
  const hn::CappedTag<float, 16> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t k = 0; k < depth; ++k, dst += width, src += k_step) {
    int64_t c = 0;
    for (; c + lanes <= columns; c += lanes) hn::StoreU(hn::LoadU(d, src + c), d, dst + c);
    for (; c < columns; ++c) dst[c] = src[c];
    for (; c < width; ++c) dst[c] = 0.0f;
  }
}

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

// dst[k * width + c] = src[c * column_step + k] in squares of 4; gives the depth that they reach, for columns rounded down to 4.
HWY_INLINE int64_t pack_transposed(float* dst, int64_t width, const float* src, int64_t column_step, int64_t columns,
                                   int64_t depth) {
  constexpr int64_t kLineFloats = 16;
  const int64_t depth4 = depth / 4 * 4, columns4 = columns / 4 * 4;
  for (int64_t line = 0; line < depth4; line += kLineFloats) {
    for (int64_t c = 0; c < columns4; c += 4) {
      const float* from = src + c * column_step;
      for (int64_t i = 0; i < 4; ++i) __builtin_prefetch(from + i * column_step + line + 2 * kLineFloats);
      for (int64_t k = line; k < std::min(depth4, line + kLineFloats); k += 4)
        transpose4(dst + k * width + c, width, from + k, column_step);
    }
  }
  return depth4;
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
