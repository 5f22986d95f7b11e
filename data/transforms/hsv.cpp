#include "data/transforms/hsv.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/transforms/hsv.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// `pixels` RGB pixels in place; hue_shift in 0..179 (whole degrees / 2), gains of saturation and value times 2^kHsvGainBits. The
// tables of OpenCV are replaced by what they tabulate: round(1044480 / V), round(122880 / diff), exact in float32.
void hsv_span(uint8_t* rgb, int64_t pixels, int32_t hue_shift, int32_t saturation_gain, int32_t value_gain) {
  const hn::ScalableTag<int32_t> di;
  const hn::Rebind<float, decltype(di)> df;
  const hn::Rebind<uint32_t, decltype(di)> du;
  const hn::Rebind<uint8_t, decltype(di)> d8;
  const auto rounding = hn::Set(df, 12582912.0f);  // adding 1.5 * 2^23 leaves the nearest even integer in the lowest 22 bits
  const int64_t lanes = int64_t(hn::Lanes(di));
  HWY_ALIGN uint8_t rest[3 * HWY_MAX_BYTES];

  for (int64_t at = 0; at < pixels; at += lanes) {
    const int64_t count = std::min(lanes, pixels - at);
    uint8_t* p = rgb + at * 3;
    if (count < lanes) {
      std::memcpy(rest, p, size_t(count) * 3);
      p = rest;
    }
    auto r8 = hn::Undefined(d8), g8 = r8, b8 = r8;
    hn::LoadInterleaved3(d8, p, r8, g8, b8);
    const auto r = hn::PromoteTo(di, r8), g = hn::PromoteTo(di, g8), b = hn::PromoteTo(di, b8);

    const auto zero = hn::Zero(di), half = hn::Set(di, 2048), turn = hn::Set(di, 180);
    const auto v = hn::Max(r, hn::Max(g, b));
    const auto diff = hn::Sub(v, hn::Min(r, hn::Min(g, b)));
    const auto ratio = [&](float numerator, auto x) HWY_ATTR {  // 0 where x is 0
      const auto quotient = hn::Div(hn::Set(df, numerator), hn::ConvertTo(df, hn::Max(x, hn::Set(di, 1))));
      const auto rounded = hn::And(hn::BitCast(di, hn::Add(quotient, rounding)), hn::Set(di, 0x3FFFFF));
      return hn::IfThenZeroElse(hn::Eq(x, zero), rounded);
    };
    auto s = hn::ShiftRight<12>(hn::Add(hn::Mul(diff, ratio(1044480.0f, v)), half));
    const auto twice = hn::Add(diff, diff);
    const auto from_g = hn::Add(hn::Sub(b, r), twice), from_b = hn::Add(hn::Sub(r, g), hn::Add(twice, twice));
    const auto numerator = hn::IfThenElse(hn::Eq(v, r), hn::Sub(g, b), hn::IfThenElse(hn::Eq(v, g), from_g, from_b));
    auto h = hn::ShiftRight<12>(hn::Add(hn::Mul(numerator, ratio(122880.0f, diff)), half));
    h = hn::Add(h, hn::IfThenElseZero(hn::Lt(h, zero), turn));

    h = hn::Add(h, hn::Set(di, hue_shift));
    h = hn::Sub(h, hn::IfThenElseZero(hn::Gt(h, hn::Set(di, 179)), turn));
    const auto gained = [&](auto x, int32_t gain) HWY_ATTR {
      return hn::Min(hn::ShiftRight<kHsvGainBits>(hn::Mul(x, hn::Set(di, gain))), hn::Set(di, 255));
    };

    const auto unit = hn::Set(df, 1.0f / 255.0f), one = hn::Set(df, 1.0f), full = hn::Set(df, 255.0f);
    const auto sf = hn::Mul(hn::ConvertTo(df, gained(s, saturation_gain)), unit);
    const auto vf = hn::Mul(hn::ConvertTo(df, gained(v, value_gain)), unit);
    const auto h6 = hn::Mul(hn::ConvertTo(df, h), hn::Set(df, 6.0f / 180.0f));
    const auto sector = hn::Floor(h6);
    const auto f = hn::Sub(h6, sector);
    const auto byte = [&](auto x)
                          HWY_ATTR { return hn::TruncateTo(d8, hn::BitCast(du, hn::Add(hn::Floor(hn::Mul(x, full)), rounding))); };
    const auto t1 = hn::Mul(vf, hn::Sub(one, sf));
    const auto t2 = hn::Mul(vf, hn::Sub(one, hn::Mul(sf, f)));
    const auto t3 = hn::Mul(vf, hn::Sub(one, hn::Mul(sf, hn::Sub(one, f))));
    const auto is = [&](float k) HWY_ATTR { return hn::Eq(sector, hn::Set(df, k)); };
    const auto s1 = is(1), s2 = is(2), s3 = is(3), s4 = is(4), s5 = is(5);
    // Sectors 0..5: red v t2 t1 t1 t3 v, green t3 v v t2 t1 t1, blue t1 t1 t3 v v t2.
    const auto red = hn::IfThenElse(s1, t2, hn::IfThenElse(hn::Or(s2, s3), t1, hn::IfThenElse(s4, t3, vf)));
    const auto green = hn::IfThenElse(hn::Or(s1, s2), vf, hn::IfThenElse(s3, t2, hn::IfThenElse(hn::Or(s4, s5), t1, t3)));
    const auto blue = hn::IfThenElse(s2, t3, hn::IfThenElse(hn::Or(s3, s4), vf, hn::IfThenElse(s5, t2, t1)));
    hn::StoreInterleaved3(byte(red), byte(green), byte(blue), d8, p);
    if (count < lanes) std::memcpy(rgb + at * 3, rest, size_t(count) * 3);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

namespace {
HWY_EXPORT(hsv_span);

// floor((x + 180 r) mod 180) is (x + floor(180 r)) mod 180 for whole x.
int32_t hue_shift(double r) {
  const int32_t shift = int32_t(std::floor(r * 180));
  return (shift % 180 + 180) % 180;
}
// In fixed point, rounded up: x (1 + r) that is a whole number stays one.
int32_t gain(double r) { return int32_t(std::clamp(std::ceil((1 + r) * (1 << kHsvGainBits)), 0.0, double(2 << kHsvGainBits))); }
}  // namespace

HsvDraw draw_hsv(Rng& rng, const AugmentConfig& c) {
  HsvDraw d;
  d.hue = rng.uniform(-1, 1) * c.hsv_h;
  d.saturation = rng.uniform(-1, 1) * c.hsv_s;
  d.value = rng.uniform(-1, 1) * c.hsv_v;
  return d;
}

HsvTables hsv_tables(const HsvDraw& draw) {
  HsvTables t;
  for (int x = 0; x < 256; ++x) {
    t.hue[size_t(x)] = uint8_t((x + hue_shift(draw.hue)) % 180);
    t.saturation[size_t(x)] = uint8_t(std::min((x * gain(draw.saturation)) >> kHsvGainBits, 255));
    t.value[size_t(x)] = uint8_t(std::min((x * gain(draw.value)) >> kHsvGainBits, 255));
  }
  return t;
}

std::array<uint8_t, 3> rgb_to_hsv(uint8_t r, uint8_t g, uint8_t b) {
  const int v = std::max({r, g, b}), diff = v - std::min({r, g, b});
  const auto ratio = [](double numerator, int x) { return x == 0 ? 0 : int(std::lrint(numerator / x)); };
  const int s = (diff * ratio(255 * 4096.0, v) + 2048) >> 12;
  const int numerator = v == r ? g - b : v == g ? b - r + 2 * diff : r - g + 4 * diff;
  const int h = (numerator * ratio(180 * 4096.0 / 6, diff) + 2048) >> 12;
  return {uint8_t(h < 0 ? h + 180 : h), uint8_t(s), uint8_t(v)};
}

void augment_hsv(Image& image, const HsvDraw& draw) {
  HWY_DYNAMIC_DISPATCH(hsv_span)
  (image.pixels.data(), int64_t(image.height) * image.width, hue_shift(draw.hue), gain(draw.saturation), gain(draw.value));
}

}  // namespace tessera
#endif  // HWY_ONCE
