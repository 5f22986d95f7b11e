#include "tensor/cpu/conv_weight_stem.h"

#include <algorithm>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/conv_weight_stem.cpp"
#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/vec_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int kSide = 3, kRun = 9;  // rows of the filter; numbers (kx, channel) of one
constexpr int kTaps = kSide * kRun;
constexpr int64_t kAhead = 24;  // pixels from what is read to what is fetched: a stride that the CPU does not foresee
constexpr int kRowsAtOnce = HWY_TARGET <= HWY_AVX3 ? kSide : 1;  // 27 sums of 32 registers, or 9 of 16

// sums[ky][r] += x[ky][pixel * step + r] * d[pixel * d_step]: kLanes output channels, or the first of them.
template <int kRows, bool kWhole>
HWY_NOINLINE void add_pixels(const float* const* x, int64_t step, const float* d, int64_t d_step, int64_t pixels, size_t outputs,
                             float* sums) {
  V c[kRows][kRun];
  const float* row[kRows];
#pragma GCC unroll 32
  for (int ky = 0; ky < kRows; ++ky) {
    row[ky] = x[ky];
#pragma GCC unroll 32
    for (int r = 0; r < kRun; ++r) c[ky][r] = load(sums + size_t(ky * kRun + r) * kLanes);
  }
  const M inside = first(outputs);
  for (int64_t p = 0; p < pixels; ++p, d += d_step) {
    const V g = kWhole ? load(d) : load(inside, d);
    __builtin_prefetch(d + kAhead * d_step);
#pragma GCC unroll 32
    for (int ky = 0; ky < kRows; ++ky) {
#pragma GCC unroll 32
      for (int r = 0; r < kRun; ++r) c[ky][r] = hn::MulAdd(splat(row[ky][r]), g, c[ky][r]);
      row[ky] += step;
    }
  }
#pragma GCC unroll 32
  for (int ky = 0; ky < kRows; ++ky) {
#pragma GCC unroll 32
    for (int r = 0; r < kRun; ++r) hn::StoreU(c[ky][r], F32(), sums + size_t(ky * kRun + r) * kLanes);
  }
}

// For the rows [begin, end) of the filter.
void add_pixels(const float* const* x, int64_t step, const float* d, int64_t d_step, int64_t pixels, int begin, int end,
                size_t outputs, float* sums) {
  const bool whole = outputs == kLanes;
  if (begin == 0 && end == kSide && kRowsAtOnce == kSide) {
    return (whole ? add_pixels<kRowsAtOnce, true> : add_pixels<kRowsAtOnce, false>)(x, step, d, d_step, pixels, outputs, sums);
  }
  for (int ky = begin; ky < end; ++ky) {
    (whole ? add_pixels<1, true> : add_pixels<1, false>)(x + ky, step, d, d_step, pixels, outputs, sums + size_t(ky * kRun) * kLanes);
  }
}

void StemWeightRows(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, int64_t begin, int64_t end,
                    float* out, bool accumulate) {
  const int64_t vectors = (dw.o + int64_t(kLanes) - 1) / int64_t(kLanes), step = p.stride * x.c;
  std::vector<float> memory(size_t(vectors) * kTaps * kLanes);
  const auto outputs_of = [&](int64_t v) { return size_t(std::min<int64_t>(int64_t(kLanes), dw.o - v * int64_t(kLanes))); };
  // Columns whose windows lie inside the image.
  const int64_t first_inside = std::min<int64_t>(dy.w, (p.pad + p.stride - 1) / p.stride);
  const int64_t room = x.w + p.pad - kSide;
  const int64_t end_inside = std::clamp<int64_t>(room < 0 ? 0 : room / p.stride + 1, first_inside, dy.w);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / dy.h, top = row % dy.h * p.stride - p.pad;
    const int first_ky = int(std::clamp<int64_t>(-top, 0, kSide)), end_ky = int(std::clamp<int64_t>(x.h - top, first_ky, kSide));
    const float* const image = data<const float>(x) + n * x.h * x.w * x.pitch;
    const float* const d = data<const float>(dy) + row * dy.w * dy.pitch;
    for (int64_t v = 0; v < vectors; ++v) {
      float* const sums = memory.data() + size_t(v) * kTaps * kLanes;
      const float* const d_v = d + v * int64_t(kLanes);
      const float* inside[kSide] = {};
      for (int ky = first_ky; ky < end_ky; ++ky) {
        inside[ky] = image + ((top + ky) * x.w + first_inside * p.stride - p.pad) * x.c;
      }
      add_pixels(inside, step, d_v + first_inside * dy.pitch, dy.pitch, end_inside - first_inside, first_ky, end_ky, outputs_of(v),
                 sums);
      for (int64_t column = 0; column < dy.w; ++column) {
        if (column == first_inside) column = end_inside;
        if (column >= dy.w) break;
        float window[kTaps] = {};
        const float* rows[kSide];
        for (int ky = 0; ky < kSide; ++ky) {
          rows[ky] = window + ky * kRun;
          for (int64_t kx = 0; kx < kSide && ky >= first_ky && ky < end_ky; ++kx) {
            const int64_t at = column * p.stride - p.pad + kx;
            if (at >= 0 && at < x.w) std::copy_n(image + ((top + ky) * x.w + at) * x.c, x.c, window + ky * kRun + kx * x.c);
          }
        }
        add_pixels(rows, step, d_v + column * dy.pitch, dy.pitch, 1, 0, kSide, outputs_of(v), sums);
      }
    }
  }
  for (int64_t o = 0; o < dw.o; ++o) {
    const float* const sums = memory.data() + size_t(o / int64_t(kLanes)) * kTaps * kLanes + size_t(o % int64_t(kLanes));
    for (int64_t t = 0; t < kTaps; ++t) {
      float& to = out[o * kTaps + t];
      to = accumulate ? to + sums[size_t(t) * kLanes] : sums[size_t(t) * kLanes];
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(StemWeightRows);

bool is_stem(const ImageView& x, const FilterView& dw) {
  return x.t == DType::kF32 && dw.kh == 3 && dw.kw == 3 && x.c == 3 && x.pitch == 3;
}

void stem_weight_rows(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, int64_t begin, int64_t end,
                      float* out, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(StemWeightRows)(x, dy, dw, p, begin, end, out, accumulate);
}

}  // namespace tessera::cpu
#endif
