// warp(): rows are cut into border, edge and interior; the interior runs in SIMD lanes (Highway, chosen at run time). All lanes
// round as the scalar code does, so every CPU gives the same image.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "data/transforms/affine.h"
#include "data/transforms/letterbox.h"
#include "tensor/base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/transforms/warp.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#ifndef TESSERA_DATA_WARP_ONCE
#define TESSERA_DATA_WARP_ONCE
namespace tessera {
// Five neighbouring pixels of an output row, channel by channel (and one value of padding): where the left tap lies behind that of
// the first pixel, and the share of the right one.
struct FivePixels {
  alignas(64) std::array<int32_t, 16> pick{};
  std::array<float, 16> share{};
};
}  // namespace tessera
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Adding 1.5 * 2^23 rounds a small value to the nearest even integer, which then stands in the lowest bits.
constexpr float kRounding = 12582912.0f;

// Output pixels [x0, x1) of one row, all of whose taps lie at least two pixels left of the right border: source position
// (m00 x + cx, m10 x + cy). Four bytes are read for each tap, three are used. Positions are found for many pixels at a time,
// colours for one: a vector load of the four bytes of a tap is cheaper than its share of a gather.
void warp_span(const uint8_t* source, int32_t pitch, int32_t x0, int32_t x1, float m00, float cx, float m10, float cy,
               uint8_t* out) {
  const hn::ScalableTag<int32_t> di;
  const hn::Rebind<float, decltype(di)> df;
  const int32_t lanes = int32_t(hn::Lanes(di));
  constexpr int32_t kBlock = 256;  // a multiple of the lanes of any target
  HWY_ALIGN int32_t offset[kBlock];
  HWY_ALIGN float share_x[kBlock], share_y[kBlock];
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> pf;
  const hn::FixedTag<int32_t, 4> pi;
  const hn::FixedTag<uint32_t, 4> pu;
  const hn::FixedTag<uint8_t, 4> p8;
#endif

  for (int32_t start = x0; start < x1; start += kBlock) {
    const int32_t count = std::min(kBlock, x1 - start);
    for (int32_t k = 0; k < count; k += lanes) {
      const auto xf = hn::ConvertTo(df, hn::Iota(di, start + k));
      const auto sx = hn::Add(hn::Mul(hn::Set(df, m00), xf), hn::Set(df, cx));
      const auto sy = hn::Add(hn::Mul(hn::Set(df, m10), xf), hn::Set(df, cy));
      const auto floor_x = hn::Floor(sx), floor_y = hn::Floor(sy);
      const auto ix = hn::ConvertTo(di, floor_x), iy = hn::ConvertTo(di, floor_y);
      hn::Store(hn::Sub(sx, floor_x), df, share_x + k);
      hn::Store(hn::Sub(sy, floor_y), df, share_y + k);
      hn::Store(hn::Add(hn::Mul(iy, hn::Set(di, pitch)), hn::Add(hn::Add(ix, ix), ix)), di, offset + k);
    }
    uint8_t* to = out + int64_t(start) * 3;
#if HWY_TARGET == HWY_SCALAR
    for (int32_t k = 0; k < count; ++k)
      for (int c = 0; c < 3; ++c, ++to) {
        const uint8_t* p = source + offset[k] + c;
        const float top = float(p[0]) + share_x[k] * (float(p[3]) - float(p[0]));
        const float bottom = float(p[pitch]) + share_x[k] * (float(p[pitch + 3]) - float(p[pitch]));
        *to = uint8_t(std::lrint(top + share_y[k] * (bottom - top)));
      }
#else
    const auto pixel = [&](int32_t k) HWY_ATTR {
      const uint8_t* p = source + offset[k];
      const auto tap = [&](const uint8_t* q) HWY_ATTR { return hn::ConvertTo(pf, hn::PromoteTo(pi, hn::LoadU(p8, q))); };
      const auto a = tap(p), b = tap(p + 3), c = tap(p + pitch), d = tap(p + pitch + 3);
      const auto fx = hn::Set(pf, share_x[k]), fy = hn::Set(pf, share_y[k]);
      const auto top = hn::Add(a, hn::Mul(fx, hn::Sub(b, a)));
      const auto bottom = hn::Add(c, hn::Mul(fx, hn::Sub(d, c)));
      const auto value = hn::Add(top, hn::Mul(fy, hn::Sub(bottom, top)));
      return hn::TruncateTo(p8, hn::BitCast(pu, hn::Add(value, hn::Set(pf, kRounding))));
    };
    for (int32_t k = 0; k + 1 < count; ++k, to += 3) hn::StoreU(pixel(k), p8, to);  // the fourth byte is overwritten by the next
    HWY_ALIGN uint8_t last[4];
    hn::Store(pixel(count - 1), p8, last);
    std::memcpy(to, last, 3);
#endif
  }
}

// `values` bytes of two rows blended, in float32. While they pass, memory is asked for what the next output row will want: the same
// bytes `ahead` and, if `two` are new to it, `pitch` less than that behind the lower row. Writes up to a vector more.
void blend_span(const uint8_t* upper, const uint8_t* lower, float share, int32_t values, int64_t ahead, int64_t pitch, bool two,
                float* out) {
  const hn::ScalableTag<float> df;
  const hn::Rebind<int32_t, decltype(df)> di;
  const hn::Rebind<uint8_t, decltype(df)> d8;
  const int32_t lanes = int32_t(hn::Lanes(df));
  constexpr int32_t kLine = 64;
  const auto fy = hn::Set(df, share);
  const auto blend = [&](int32_t i) HWY_ATTR {
    const auto a = hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadU(d8, upper + i)));
    const auto b = hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadU(d8, lower + i)));
    hn::StoreU(hn::Add(a, hn::Mul(fy, hn::Sub(b, a))), df, out + i);
  };
  if (values < lanes) {
    for (int32_t i = 0; i < values; ++i) out[i] = float(upper[i]) + share * (float(lower[i]) - float(upper[i]));
    return;
  }
  for (int32_t i = 0; i + lanes <= values; i += lanes) {
    if (ahead != 0 && i % kLine == 0) {
      __builtin_prefetch(lower + i + ahead);
      if (two) __builtin_prefetch(lower + i + ahead - pitch);
    }
    blend(i);
  }
  blend(values - lanes);
}

// One output row when the axes keep their directions, from two source rows blended: pixel k lies between blend[offset[k]] and the
// pixel after it, by its share; a vector more of shares may be read. `fives`, if not null: the same of each five pixels, ready for
// one look-up.
void warp_row(const float* blend, const int32_t* offset, const float* shares, [[maybe_unused]] const FivePixels* fives,
              int32_t count, uint8_t* out) {
#if HWY_TARGET == HWY_SCALAR
  for (int32_t k = 0; k < count; ++k)
    for (int c = 0; c < 3; ++c, ++out) {
      const float* p = blend + offset[k] + c;
      *out = uint8_t(std::lrint(p[0] + shares[k] * (p[3] - p[0])));
    }
#else
  const hn::FixedTag<float, 4> pf;
  const hn::FixedTag<uint32_t, 4> pu;
  const hn::FixedTag<uint8_t, 4> p8;
  int32_t k = 0;
#if HWY_CAP_GE512
  const hn::FixedTag<float, 8> hf;
  const hn::FixedTag<float, 16> qf;
  const hn::FixedTag<uint32_t, 16> qu;
  const hn::FixedTag<uint8_t, 16> q8;
#if HWY_ARCH_X86
  if (fives != nullptr) {
    const __m512i next = _mm512_set1_epi32(3);
    for (; k + 6 <= count; k += 5, ++fives, out += 15) {  // writes 16 bytes; the next pixel replaces the last
      const float* const p = blend + offset[k];
      const __m512 near = _mm512_loadu_ps(p), far = _mm512_loadu_ps(p + 16), share = _mm512_load_ps(fives->share.data());
      const __m512i pick = _mm512_load_si512(fives->pick.data());
      const __m512 a = _mm512_permutex2var_ps(near, pick, far), b = _mm512_permutex2var_ps(near, _mm512_add_epi32(pick, next), far);
      const __m512 value = _mm512_add_ps(a, _mm512_mul_ps(share, _mm512_sub_ps(b, a)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(_mm512_castps_si512(_mm512_add_ps(value, _mm512_set1_ps(kRounding)))));
    }
  }
#endif
  // Four pixels at a time, from anywhere.
  HWY_ALIGN static constexpr uint8_t kPack[16] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15};
  const auto pack = hn::Load(q8, kPack);
  HWY_ALIGN static constexpr int32_t kEachFour[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  const auto each_four = hn::SetTableIndices(qf, kEachFour);
  const auto taps = [&](const float* p, const int32_t* o) HWY_ATTR {
    return hn::Combine(qf, hn::Combine(hf, hn::LoadU(pf, p + o[3]), hn::LoadU(pf, p + o[2])),
                       hn::Combine(hf, hn::LoadU(pf, p + o[1]), hn::LoadU(pf, p + o[0])));
  };
  for (; k + 6 <= count; k += 4, out += 12) {  // writes 16 bytes; the next pixels replace the last four
    const auto a = taps(blend, offset + k), b = taps(blend + 3, offset + k);
    const auto share = hn::TableLookupLanes(hn::LoadU(qf, shares + k), each_four);
    const auto value = hn::Add(a, hn::Mul(share, hn::Sub(b, a)));
    const auto bytes4 = hn::TruncateTo(q8, hn::BitCast(qu, hn::Add(value, hn::Set(qf, kRounding))));
    hn::StoreU(hn::TableLookupBytes(bytes4, pack), q8, out);
  }
#endif
  const auto pixel = [&](int32_t at) HWY_ATTR {
    const auto a = hn::LoadU(pf, blend + offset[at]), b = hn::LoadU(pf, blend + offset[at] + 3);
    const auto value = hn::Add(a, hn::Mul(hn::Set(pf, shares[at]), hn::Sub(b, a)));
    return hn::TruncateTo(p8, hn::BitCast(pu, hn::Add(value, hn::Set(pf, kRounding))));
  };
  for (; k + 1 < count; ++k, out += 3) hn::StoreU(pixel(k), p8, out);
  HWY_ALIGN uint8_t last[4];
  hn::Store(pixel(count - 1), p8, last);
  std::memcpy(out, last, 3);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

namespace {

HWY_EXPORT(warp_span);
HWY_EXPORT(blend_span);
HWY_EXPORT(warp_row);

// One pixel with taps that may lie outside.
void sample_with_border(const Image& source, float sx, float sy, uint8_t* out) {
  // Far outside, also where the conversion to int would overflow or the position is not a number.
  if (!(sx > -1 && sy > -1 && sx < float(source.width) && sy < float(source.height))) {
    std::memset(out, kBorderValue, 3);
    return;
  }
  const float floor_x = std::floor(sx), floor_y = std::floor(sy), fx = sx - floor_x, fy = sy - floor_y;
  const int ix = int(floor_x), iy = int(floor_y);
  const auto tap = [&](int x, int y, int c) {
    return x < 0 || y < 0 || x >= source.width || y >= source.height ? float(kBorderValue) : float(source.row(y)[x * 3 + c]);
  };
  for (int c = 0; c < 3; ++c) {
    const float a = tap(ix, iy, c), b = tap(ix + 1, iy, c), d = tap(ix, iy + 1, c), e = tap(ix + 1, iy + 1, c);
    const float top = a + fx * (b - a), bottom = d + fx * (e - d);
    out[c] = uint8_t(std::lrint(top + fy * (bottom - top)));
  }
}

// The x in [0, n) with low <= a x + c <= high, up to rounding.
Columns solve(float a, float c, double low, double high, int n) {
  if (a == 0) return c >= low && c <= high ? Columns{0, n} : Columns{0, 0};
  double x0 = (low - c) / a, x1 = (high - c) / a;
  if (x0 > x1) std::swap(x0, x1);
  if (!(x0 < n && x1 >= 0)) return {0, 0};
  return {int(std::max(std::ceil(x0), 0.0)), int(std::min(std::floor(x1) + 1, double(n)))};
}

Columns intersect(Columns a, Columns b) {
  const Columns r{std::max(a.begin, b.begin), std::min(a.end, b.end)};
  return r.begin < r.end ? r : Columns{0, 0};
}

// The pixels by fives; none where the taps of five lie further apart than the two vectors of a look-up.
void find_fives(std::span<const int32_t> offset, std::span<const float> share, std::vector<FivePixels>& fives) {
  fives.clear();
  for (size_t k = 0; k + 5 <= offset.size(); k += 5) {
    if (offset[k + 4] - offset[k] + 5 > 31) return fives.clear();
    FivePixels& five = fives.emplace_back();
    for (size_t i = 0; i < 15; ++i) {
      five.pick[i] = offset[k + i / 3] - offset[k] + int32_t(i % 3);
      five.share[i] = share[k + i / 3];
    }
  }
}

void warp_affine(const Image& source, const Matrix3& forward, Image& out) {
  const Matrix3 inverse = inverse_map(forward, false);
  const float m00 = inverse[0], m01 = inverse[1], m02 = inverse[2], m10 = inverse[3], m11 = inverse[4], m12 = inverse[5];
  const int w = source.width, h = source.height;

  for (int y = 0; y < out.height; ++y) {
    uint8_t* row = out.row(y);
    const float cx = m01 * float(y) + m02, cy = m11 * float(y) + m12;
    const auto position_x = [&](int x) { return m00 * float(x) + cx; };
    const auto position_y = [&](int x) { return m10 * float(x) + cy; };
    const auto inside = [&](int x) {
      const float sx = position_x(x), sy = position_y(x);
      return sx >= 0 && sx < float(w - 2) && sy >= 0 && sy < float(h - 1);
    };
    // Solved in double, then corrected to what the float positions say; positions are monotone, so the ends decide.
    Columns inner = intersect(solve(m00, cx, 0, w - 2, out.width), solve(m10, cy, 0, h - 1, out.width));
    while (inner.begin < inner.end && !inside(inner.begin)) ++inner.begin;
    while (inner.begin < inner.end && !inside(inner.end - 1)) --inner.end;
    Columns touched = intersect(solve(m00, cx, -2, w + 1, out.width), solve(m10, cy, -2, h + 1, out.width));
    if (inner.begin >= inner.end) inner = {touched.begin, touched.begin};
    touched = {std::min(touched.begin, inner.begin), std::max(touched.end, inner.end)};

    std::memset(row, kBorderValue, size_t(touched.begin) * 3);
    std::memset(row + size_t(touched.end) * 3, kBorderValue, size_t(out.width - touched.end) * 3);
    for (int x = touched.begin; x < inner.begin; ++x) sample_with_border(source, position_x(x), position_y(x), row + x * 3);
    for (int x = inner.end; x < touched.end; ++x) sample_with_border(source, position_x(x), position_y(x), row + x * 3);
    if (inner.begin >= inner.end) continue;
    HWY_DYNAMIC_DISPATCH(warp_span)(source.pixels.data(), w * 3, inner.begin, inner.end, m00, cx, m10, cy, row);
  }
}

void warp_perspective(const Image& source, const Matrix3& m, Image& out) {
  const Matrix3 inverse = inverse_map(m, true);
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) {
      const float fx = float(x), fy = float(y);
      const float z = inverse[6] * fx + (inverse[7] * fy + inverse[8]);
      sample_with_border(source, (inverse[0] * fx + (inverse[1] * fy + inverse[2])) / z,
                         (inverse[3] * fx + (inverse[4] * fy + inverse[5])) / z, out.row(y) + x * 3);
    }
}

}  // namespace

Matrix3 inverse_map(const Matrix3& m, bool perspective) {
  const double a = m[0], b = m[1], c = m[2], d = m[3], e = m[4], f = m[5], g = m[6], h = m[7], i = m[8];
  if (!perspective) {
    double det = a * e - b * d;
    det = det != 0 ? 1 / det : 0;
    const double i00 = e * det, i01 = -b * det, i10 = -d * det, i11 = a * det;
    return {float(i00), float(i01), float(-i00 * c - i01 * f), float(i10), float(i11), float(-i10 * c - i11 * f), 0, 0, 1};
  }
  const double det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  const double s = det != 0 ? 1 / det : 0;
  return {float((e * i - f * h) * s), float((c * h - b * i) * s), float((b * f - c * e) * s),
          float((f * g - d * i) * s), float((a * i - c * g) * s), float((c * d - a * f) * s),
          float((d * h - e * g) * s), float((b * g - a * h) * s), float((a * e - b * d) * s)};
}

void ImageRows::done(int, uint8_t* row, Columns made) {
  if (made.empty()) made = {};
  std::memset(row, kBorderValue, size_t(made.begin) * 3);
  std::memset(row + size_t(made.end) * 3, kBorderValue, size_t(image_.width - made.end) * 3);
}

bool keeps_axes(const Matrix3& m) { return m[1] == 0 && m[3] == 0 && m[0] >= 0; }

void warp_rows(const Collage& source, const Matrix3& m, int out_height, int out_width, RowSink& sink) {
  const Matrix3 inverse = inverse_map(m, false);
  const float m00 = inverse[0], m02 = inverse[2];
  const auto position = [&](int x) { return m00 * float(x) + m02; };
  // Columns with a tap on the canvas: solved in double, then corrected to what the float positions say; positions rise with x.
  const auto touches = [&](int x) { return position(x) > -1 && position(x) < float(source.width); };
  Columns touched = solve(m00, m02, -2, source.width + 1, out_width);
  while (touched.begin < touched.end && !touches(touched.begin)) ++touched.begin;
  while (touched.begin < touched.end && !touches(touched.end - 1)) --touched.end;
  const size_t count = size_t(touched.end - touched.begin);
  std::vector<int32_t> column(count), offset(count);  // left tap of each pixel: on the canvas; in bytes from the first of all
  constexpr size_t kVector = 16;  // the longest of any target
  std::vector<float> share(count + kVector);
  for (size_t k = 0; k < count; ++k) {
    const float sx = position(touched.begin + int(k)), whole = std::floor(sx);
    column[k] = int32_t(whole);
    offset[k] = (column[k] - column[0]) * 3;
    share[k] = sx - whole;
  }
  const int first = count == 0 ? 0 : column.front(), bytes = count == 0 ? 0 : offset.back() + 6;
  std::vector<float> blend(size_t(bytes) + 2 * kVector);
  const std::vector<uint8_t> border(size_t(bytes), kBorderValue);
  std::vector<FivePixels> fives;
  // Canvas rows `top` and the one below, columns [x0, x1), blended; their next neighbours will be `step` rows further down.
  const auto blend_rows = [&](int top, float share_y, int x0, int x1, int step) {
    Collage::Stretches upper, lower;
    source.stretches(top, x0, x1, border.data(), upper);
    source.stretches(top + 1, x0, x1, border.data(), lower);
    const Collage::Stretch *a = upper.data(), *b = lower.data();
    for (int x = x0; x < x1;) {
      const int end = std::min(a->end, b->end);
      const auto from = [&](const Collage::Stretch& s) { return s.pitch == 0 ? s.bytes : s.bytes + size_t(x - s.begin) * 3; };
      HWY_DYNAMIC_DISPATCH(blend_span)
      (from(*a), from(*b), share_y, (end - x) * 3, step * b->pitch, b->pitch, step > 1, blend.data() + size_t(x - first) * 3);
      if (a->end == end) ++a;
      if (b->end == end) ++b;
      x = end;
    }
  };

  Columns filled, made;  // of the last row
  for (int y = 0; y < out_height; ++y) {
    uint8_t* const row = sink.row(y);
    const float sy = inverse[4] * float(y) + inverse[5];
    Columns now;
    if (count > 0 && sy > -1 && sy < float(source.height)) {
      const int top = int(std::floor(sy));
      const Columns a = source.filled(top), b = source.filled(top + 1);
      now = a.empty() ? b : b.empty() ? a : Columns{std::min(a.begin, b.begin), std::max(a.end, b.end)};
    }
    if (now.empty()) {
      sink.done(y, row, {});
      continue;
    }
    if (now.begin != filled.begin || now.end != filled.end) {
      filled = now;
      made.begin = int(std::lower_bound(column.begin(), column.end(), now.begin - 1) - column.begin());
      made.end = int(std::lower_bound(column.begin(), column.end(), now.end) - column.begin());
      const size_t begin = size_t(made.begin), n = size_t(std::max(made.end - made.begin, 0));
      find_fives(std::span(offset).subspan(begin, n), std::span(share).subspan(begin, n), fives);
    }
    if (made.empty()) {
      sink.done(y, row, {});
      continue;
    }
    const size_t k = size_t(made.begin);
    const float floor_y = std::floor(sy);
    const int top = int(floor_y),
              next_top = int(std::clamp(std::floor(inverse[4] * float(y + 1) + inverse[5]), -1.0f, float(source.height)));
    blend_rows(top, sy - floor_y, column[k], column[size_t(made.end) - 1] + 2, next_top - top);
    HWY_DYNAMIC_DISPATCH(warp_row)
    (blend.data(), offset.data() + k, share.data() + k, fives.empty() ? nullptr : fives.data(), made.end - made.begin,
     row + size_t(touched.begin + made.begin) * 3);
    sink.done(y, row, {touched.begin + made.begin, touched.begin + made.end});
  }
}

void warp(const Image& source, const Matrix3& m, bool perspective, int out_height, int out_width, Image& out) {
  TESSERA_CHECK(!source.empty() && &source != &out, "warp: source {}x{}", source.height, source.width);
  out.height = out_height;
  out.width = out_width;
  out.pixels.resize(size_t(out_height) * size_t(out_width) * 3);
  if (perspective) {
    warp_perspective(source, m, out);
  } else if (keeps_axes(m)) {
    Collage whole;
    whole.height = source.height;
    whole.width = source.width;
    whole.add(source, 0, 0);
    ImageRows rows(out);
    warp_rows(whole, m, out_height, out_width, rows);
  } else {
    warp_affine(source, m, out);
  }
}

}  // namespace tessera
#endif  // HWY_ONCE
