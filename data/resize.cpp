// resize_bilinear(): OpenCV's 8-bit bilinear in its own fixed point. A source row is brought to the target's width once, two such
// rows are blended for each target row; whole numbers throughout, so every CPU gives the same image.
#include <algorithm>
#include <bit>
#include <cstring>

#include "data/image.h"
#include "data/resize_taps.h"
#include "tensor/base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/resize.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#ifndef TESSERA_DATA_RESIZE_ONCE
#define TESSERA_DATA_RESIZE_ONCE
namespace tessera {
struct TapWeights {
  int16_t first, second;  // sum 2048
};
}  // namespace tessera
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Pixels [0, count) of a row of three channels, kept shifted as the vertical pass wants them: (p0 w0 + p1 w1) >> 4 < 2^15. `first`
// is in bytes; the second tap is the pixel after it. Eight bytes are read at each. Writes one value more.
void resize_pixels(const uint8_t* row, const int32_t* first, const TapWeights* weights, int32_t count, int16_t* out) {
#if HWY_TARGET == HWY_SCALAR
  for (int32_t x = 0; x < count; ++x)
    for (int c = 0; c < 3; ++c)
      *out++ = int16_t((row[first[x] + c] * weights[x].first + row[first[x] + c + 3] * weights[x].second) >> 4);
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3
  const __m128i pairs =
      _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);  // of each channel both taps, in 16 bits
  for (int32_t x = 0; x < count; ++x, out += 3) {
    const __m128i taps = _mm_shuffle_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + first[x])), pairs);
    const __m128i sum = _mm_srai_epi32(_mm_madd_epi16(taps, _mm_set1_epi32(std::bit_cast<int32_t>(weights[x]))), 4);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packs_epi32(sum, sum));
  }
#else
  const hn::FixedTag<int32_t, 4> di;
  const hn::FixedTag<int16_t, 4> d16;
  const hn::FixedTag<uint8_t, 4> d8;
  for (int32_t x = 0; x < count; ++x, out += 3) {
    const uint8_t* const p = row + first[x];
    const auto a = hn::PromoteTo(di, hn::LoadU(d8, p)), b = hn::PromoteTo(di, hn::LoadU(d8, p + 3));
    const auto sum = hn::Add(hn::Mul(a, hn::Set(di, weights[x].first)), hn::Mul(b, hn::Set(di, weights[x].second)));
    hn::StoreU(hn::DemoteTo(d16, hn::ShiftRight<4>(sum)), d16, out);
  }
#endif
}

// (((w0 upper) >> 16) + ((w1 lower) >> 16) + 2) >> 2, limited to 0 .. 255.
void blend_rows(const int16_t* upper, const int16_t* lower, int16_t w0, int16_t w1, int64_t values, uint8_t* out) {
  const hn::ScalableTag<int16_t> d16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const int64_t lanes = int64_t(hn::Lanes(d16));
  const auto a = hn::Set(d16, w0), b = hn::Set(d16, w1), two = hn::Set(d16, 2);
  int64_t i = 0;
  for (; i + lanes <= values; i += lanes) {
    const auto sum = hn::Add(hn::MulHigh(a, hn::LoadU(d16, upper + i)), hn::MulHigh(b, hn::LoadU(d16, lower + i)));
    hn::StoreU(hn::DemoteTo(d8, hn::ShiftRight<2>(hn::Add(sum, two))), d8, out + i);
  }
  for (; i < values; ++i)
    out[i] = uint8_t(std::clamp((((int32_t(w0) * upper[i]) >> 16) + ((int32_t(w1) * lower[i]) >> 16) + 2) >> 2, 0, 255));
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

namespace {

HWY_EXPORT(resize_pixels);
HWY_EXPORT(blend_rows);

struct Taps {
  std::vector<int32_t> first, second;  // source positions, times `step`
  std::vector<TapWeights> weights;
};

Taps make_taps(int source, int target, bool columns, int32_t step) {
  Taps taps;
  for_each_tap(source, target, columns, [&](int, int i0, int i1, float f) {
    taps.first.push_back(i0 * step);
    taps.second.push_back(i1 * step);
    taps.weights.push_back({int16_t(tap_weight(1.0f - f)), int16_t(tap_weight(f))});
  });
  return taps;
}

// One source row to target width.
void resize_row(const uint8_t* row, const Taps& columns, int source_width, int width, int channels, int16_t* out) {
  int done = 0;
  if (channels == 3) {
    // Up to the first pixel whose eight bytes would reach behind the row, or whose second tap is not the next.
    const auto& first = columns.first;
    done = int(std::lower_bound(first.begin(), first.end(), source_width * 3 - 7) - first.begin());
    HWY_DYNAMIC_DISPATCH(resize_pixels)(row, first.data(), columns.weights.data(), done, out);
  }
  for (int x = done; x < width; ++x) {
    const uint8_t* p = row + columns.first[size_t(x)];
    const uint8_t* q = row + columns.second[size_t(x)];
    for (int c = 0; c < channels; ++c)
      out[x * channels + c] = int16_t((p[c] * columns.weights[size_t(x)].first + q[c] * columns.weights[size_t(x)].second) >> 4);
  }
}

void halve(const uint8_t* source, int source_width, uint8_t* target, int height, int width, int channels) {
  const size_t pitch = size_t(source_width) * size_t(channels);
  for (int y = 0; y < height; ++y) {
    const uint8_t* a = source + size_t(2 * y) * pitch;
    const uint8_t* b = a + pitch;
    uint8_t* out = target + size_t(y) * size_t(width) * size_t(channels);
    for (int x = 0; x < width; ++x, a += 2 * channels, b += 2 * channels)
      for (int c = 0; c < channels; ++c) *out++ = uint8_t((a[c] + a[c + channels] + b[c] + b[c + channels] + 2) >> 2);
  }
}

}  // namespace

void resize_bilinear(const uint8_t* source, int sh, int sw, uint8_t* target, int th, int tw, int channels) {
  TESSERA_CHECK(sh > 0 && sw > 0 && th > 0 && tw > 0 && (channels == 1 || channels == 3), "resize {}x{} to {}x{}, {} channels", sh,
                sw, th, tw, channels);
  if (sh == th && sw == tw) {
    std::memcpy(target, source, size_t(sh) * size_t(sw) * size_t(channels));
    return;
  }
  if (sh == 2 * th && sw == 2 * tw) return halve(source, sw, target, th, tw, channels);
  const Taps columns = make_taps(sw, tw, true, channels), rows = make_taps(sh, th, false, 1);
  const size_t row_values = size_t(tw) * size_t(channels);
  std::vector<int16_t> buffers[2] = {std::vector<int16_t>(row_values + 1), std::vector<int16_t>(row_values + 1)};
  int held[2] = {-1, -1};  // source row in each buffer
  for (int y = 0; y < th; ++y) {
    const int want[2] = {rows.first[size_t(y)], rows.second[size_t(y)]};
    if (held[1] == want[0]) std::swap(buffers[0], buffers[1]), std::swap(held[0], held[1]);
    for (int k = 0; k < 2; ++k) {
      if (held[k] == want[k]) continue;
      resize_row(source + size_t(want[k]) * size_t(sw) * size_t(channels), columns, sw, tw, channels, buffers[k].data());
      held[k] = want[k];
    }
    HWY_DYNAMIC_DISPATCH(blend_rows)
    (buffers[0].data(), buffers[1].data(), rows.weights[size_t(y)].first, rows.weights[size_t(y)].second, int64_t(row_values),
     target + size_t(y) * row_values);
  }
}

Image resize_bilinear(const Image& source, int height, int width) {
  Image out(height, width);
  resize_bilinear(source.pixels.data(), source.height, source.width, out.pixels.data(), height, width, 3);
  return out;
}

}  // namespace tessera
#endif  // HWY_ONCE
