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

// See HsvChange::apply. Bytes are handled a whole vector at a time, the arithmetic between in float32 lanes, where all of it is exact or
// rounded as OpenCV rounds: the tables of OpenCV are replaced by what they tabulate, round(1044480 / V) and round(122880 / diff). Of the
// way back only the middle and the lowest channel need arithmetic; the sector of the hue says which channel is which.
void hsv_span(const uint8_t* rgb, int64_t pixels, int32_t hue_shift, int32_t saturation_gain, int32_t value_gain, bool mirror, uint8_t* out) {
  const hn::ScalableTag<uint8_t> d8;
  const hn::ScalableTag<int16_t> d16;
  const hn::ScalableTag<int32_t> di;
  const hn::Rebind<float, decltype(di)> df;
  const hn::Rebind<uint32_t, decltype(di)> du;
  const hn::Rebind<uint8_t, decltype(d16)> d8_16;
  const hn::Rebind<uint8_t, decltype(di)> d8_32;
  const hn::Rebind<int16_t, decltype(di)> d16_32;
  const int64_t lanes = int64_t(hn::Lanes(d8)), lanes16 = int64_t(hn::Lanes(d16)), lanes32 = int64_t(hn::Lanes(di));
  const float magic = 12582912.0f;  // adding 1.5 * 2^23 leaves the nearest even integer in the lowest 22 bits
  const auto rounding = hn::Set(df, magic), one = hn::Set(df, 1.0f), half = hn::Set(df, 0.5f), full = hn::Set(df, 255.0f);
  const auto unit = hn::Set(df, 1.0f / 255.0f), turn = hn::Set(df, 180.0f), fraction = hn::Set(df, 1.0f / 4096.0f);
  const auto whole_bits = hn::Set(di, 0x3FFFFF), most = hn::Set(di, 255);
  const auto reversed = [&](auto x) HWY_ATTR {
#if HWY_TARGET == HWY_SCALAR
    return x;  // one lane
#else
    const hn::Repartition<uint16_t, decltype(d8)> pairs;
    const auto swapped = hn::Reverse(pairs, hn::BitCast(pairs, x));
    return hn::BitCast(d8, hn::Or(hn::ShiftLeft<8>(swapped), hn::ShiftRight<8>(swapped)));
#endif
  };
  // Per pixel: highest channel, spread, both at least 1; the operands of the hue; then the new channels and the sector. Several vectors
  // go through each stage before the next begins: what was just stored in parts cannot be loaded whole at once.
  constexpr int64_t kVectors = 6, kBlock = kVectors * HWY_MAX_BYTES;
  HWY_ALIGN uint8_t value[kBlock], spread[kBlock], value1[kBlock], spread1[kBlock], plus[kBlock], minus[kBlock], turns[kBlock];
  HWY_ALIGN int16_t numerator[kBlock];
  HWY_ALIGN uint8_t high[kBlock], middle[kBlock], low[kBlock], sectors[kBlock];
  HWY_ALIGN uint8_t rest[3 * HWY_MAX_BYTES];

  for (int64_t block = 0; block < pixels; block += kVectors * lanes) {
    const int64_t in_block = std::min(kVectors * lanes, pixels - block);
    for (int64_t i = 0; i < in_block; i += lanes) {
      const int64_t count = std::min(lanes, in_block - i);
      const uint8_t* from = rgb + (block + i) * 3;
      if (count < lanes) {
        std::memcpy(rest, from, size_t(count) * 3);
        std::memset(rest + count * 3, 0, size_t(lanes - count) * 3);
        from = rest;
      }
      auto r = hn::Undefined(d8), g = r, b = r;
      hn::LoadInterleaved3(d8, from, r, g, b);
      const auto v = hn::Max(r, hn::Max(g, b)), diff = hn::Sub(v, hn::Min(r, hn::Min(g, b)));
      const auto is_r = hn::Eq(v, r), is_g = hn::Eq(v, g);
      const auto one8 = hn::Set(d8, 1);
      hn::Store(v, d8, value + i);
      hn::Store(diff, d8, spread + i);
      hn::Store(hn::Max(v, one8), d8, value1 + i);
      hn::Store(hn::Max(diff, one8), d8, spread1 + i);
      hn::Store(hn::IfThenElse(is_r, g, hn::IfThenElse(is_g, b, r)), d8, plus + i);
      hn::Store(hn::IfThenElse(is_r, b, hn::IfThenElse(is_g, r, g)), d8, minus + i);
      hn::Store(hn::IfThenZeroElse(is_r, hn::IfThenElse(is_g, hn::Set(d8, 2), hn::Set(d8, 4))), d8, turns + i);
    }

    for (int64_t i = 0; i < in_block; i += lanes16) {
      const auto wide = [&](const uint8_t* p) HWY_ATTR { return hn::PromoteTo(d16, hn::Load(d8_16, p + i)); };
      hn::Store(hn::Add(hn::Sub(wide(plus), wide(minus)), hn::Mul(wide(turns), wide(spread))), d16, numerator + i);
    }

    for (int64_t i = 0; i < in_block; i += lanes32) {
      const auto whole = [&](const uint8_t* p) HWY_ATTR { return hn::PromoteTo(di, hn::Load(d8_32, p + i)); };
      const auto real = [&](auto x) HWY_ATTR { return hn::ConvertTo(df, x); };
      const auto ratio = [&](float n, auto x) HWY_ATTR { return hn::Sub(hn::Add(hn::Div(hn::Set(df, n), real(x)), rounding), rounding); };
      // floor(x y / 4096 + 1/2) for whole x y below 2^22, with `rounding` added: the half that is added first decides ties.
      const auto scaled = [&](auto x, auto y) HWY_ATTR { return hn::MulAdd(hn::MulAdd(x, y, half), fraction, rounding); };
      const auto bits = [&](auto x) HWY_ATTR { return hn::And(hn::BitCast(di, x), whole_bits); };
      const auto gained = [&](auto x, int32_t gain) HWY_ATTR {
        return hn::Mul(real(hn::Min(hn::ShiftRight<kHsvGainBits>(hn::Mul(x, hn::Set(di, gain))), most)), unit);
      };
      const auto s = gained(bits(scaled(real(whole(spread)), ratio(1044480.0f, whole(value1)))), saturation_gain);
      const auto v1 = gained(whole(value), value_gain);
      const auto hue = scaled(real(hn::PromoteTo(di, hn::Load(d16_32, numerator + i))), ratio(122880.0f, whole(spread1)));
      // -30 .. 150 shifted by 0 .. 179, back into 0 .. 179: of x - 180, x and x + 180 the lowest when negative numbers count as huge.
      const auto shifted = hn::Sub(hue, hn::Set(df, magic - float(hue_shift)));
      const auto order = [&](auto x) HWY_ATTR { return hn::BitCast(du, x); };
      const auto h = hn::BitCast(
          df, hn::Min(order(shifted), hn::Min(order(hn::Sub(shifted, turn)), order(hn::Add(shifted, turn)))));

      const auto h6 = hn::Mul(h, hn::Set(df, 6.0f / 180.0f));
      const auto sector = hn::Floor(h6), f = hn::Sub(h6, sector);
      const auto sector_bits = hn::BitCast(di, hn::Add(sector, rounding));
      const auto odd = hn::MaskFromVec(hn::BitCast(df, hn::BroadcastSignBit(hn::ShiftLeft<31>(sector_bits))));
      const auto share = hn::IfThenElse(odd, f, hn::Sub(one, f));
      const auto store = [&](auto x, uint8_t* to) HWY_ATTR {
        hn::Store(hn::TruncateTo(d8_32, hn::BitCast(du, hn::Add(hn::Floor(hn::Mul(x, full)), rounding))), d8_32, to + i);
      };
      store(v1, high);
      store(hn::Mul(v1, hn::Sub(one, hn::Mul(s, share))), middle);
      store(hn::Mul(v1, hn::Sub(one, s)), low);
      hn::Store(hn::TruncateTo(d8_32, hn::BitCast(du, sector_bits)), d8_32, sectors + i);
    }

    for (int64_t i = 0; i < in_block; i += lanes) {
      const int64_t at = block + i, count = std::min(lanes, pixels - at);
      const auto sector = hn::Load(d8, sectors + i), hi = hn::Load(d8, high + i), mid = hn::Load(d8, middle + i),
                 lo = hn::Load(d8, low + i);
      const auto is = [&](uint8_t k) HWY_ATTR { return hn::Eq(sector, hn::Set(d8, k)); };
      const auto s0 = is(0), s1 = is(1), s2 = is(2), s3 = is(3), s4 = is(4), s5 = is(5);
      // Sectors 0..5: red hi mid lo lo mid hi, green mid hi hi mid lo lo, blue lo lo mid hi hi mid.
      auto r = hn::IfThenElse(hn::Or(s1, s4), mid, hn::IfThenElse(hn::Or(s2, s3), lo, hi));
      auto g = hn::IfThenElse(hn::Or(s0, s3), mid, hn::IfThenElse(hn::Or(s4, s5), lo, hi));
      auto b = hn::IfThenElse(hn::Or(s2, s5), mid, hn::IfThenElse(hn::Or(s3, s4), hi, lo));
      if (mirror) r = reversed(r), g = reversed(g), b = reversed(b);
      if (count == lanes) {
        hn::StoreInterleaved3(r, g, b, d8, out + (mirror ? pixels - at - lanes : at) * 3);
      } else {
        hn::StoreInterleaved3(r, g, b, d8, rest);
        if (mirror)
          std::memcpy(out, rest + (lanes - count) * 3, size_t(count) * 3);
        else
          std::memcpy(out + at * 3, rest, size_t(count) * 3);
      }
    }
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
int32_t whole_shift(double r) {
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

std::array<uint8_t, 3> rgb_to_hsv(uint8_t r, uint8_t g, uint8_t b) {
  const int v = std::max({r, g, b}), diff = v - std::min({r, g, b});
  const auto ratio = [](double numerator, int x) { return x == 0 ? 0 : int(std::lrint(numerator / x)); };
  const int s = (diff * ratio(255 * 4096.0, v) + 2048) >> 12;
  const int numerator = v == r ? g - b : v == g ? b - r + 2 * diff : r - g + 4 * diff;
  const int h = (numerator * ratio(180 * 4096.0 / 6, diff) + 2048) >> 12;
  return {uint8_t(h < 0 ? h + 180 : h), uint8_t(s), uint8_t(v)};
}

HsvChange::HsvChange(const HsvDraw& draw)
    : hue_shift_(whole_shift(draw.hue)), saturation_gain_(gain(draw.saturation)), value_gain_(gain(draw.value)) {}

void HsvChange::apply(const uint8_t* rgb, int64_t pixels, bool mirror, uint8_t* out) const {
  if (pixels > 0) HWY_DYNAMIC_DISPATCH(hsv_span)(rgb, pixels, hue_shift_, saturation_gain_, value_gain_, mirror, out);
}

void augment_hsv(Image& image, const HsvDraw& draw) {
  HsvChange(draw).apply(image.pixels.data(), int64_t(image.height) * image.width, false, image.pixels.data());
}

}  // namespace tessera
#endif  // HWY_ONCE
