#include "data/transforms/hsv.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#define HWY_WANT_AVX3_DL  // for its look-up of bytes
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/transforms/hsv.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#ifndef TESSERA_DATA_HSV_ONCE
#define TESSERA_DATA_HSV_ONCE
namespace tessera {
// round(numerator / x) = whole * 4096 + fraction, by x of a byte: OpenCV's tables in bytes.
struct RatioTable {
  alignas(64) std::array<uint8_t, 256> whole, fraction_low, fraction_high;
  explicit RatioTable(float numerator) {
    for (size_t x = 0; x < 256; ++x) {
      const int32_t r = int32_t(std::lrint(numerator / float(std::max<size_t>(x, 1))));
      whole[x] = uint8_t(r >> 12), fraction_low[x] = uint8_t(r), fraction_high[x] = uint8_t(r >> 8 & 15);
    }
  }
};
inline const RatioTable& saturation_ratios() {
  static const RatioTable table(255 * 4096.0f);
  return table;
}
inline const RatioTable& hue_ratios() {
  static const RatioTable table(180 * 4096.0f / 6);
  return table;
}

// Bytes of 64 pixels in turns: for each of three vectors, which byte of the channels (red 0 .. 63, green 64 .. 127) and which of blue it takes.
struct InterleaveTable {
  alignas(64) std::array<std::array<uint8_t, 64>, 3> of_two, of_blue;
  explicit InterleaveTable(bool mirror) {
    for (size_t at = 0; at < 192; ++at) {
      const size_t pixel = mirror ? 63 - at / 3 : at / 3;
      of_two[at / 64][at % 64] = uint8_t(pixel + (at % 3 == 1 ? 64 : 0));
      of_blue[at / 64][at % 64] = uint8_t(pixel);
    }
  }
};
inline const InterleaveTable& interleave_table(bool mirror) {
  static const InterleaveTable tables[2] = {InterleaveTable(false), InterleaveTable(true)};
  return tables[mirror];
}
// And back: byte c of each pixel, from the first two vectors of 64 and from the third.
struct SplitTable {
  alignas(64) std::array<std::array<uint8_t, 64>, 3> place;
  SplitTable() {
    for (size_t c = 0; c < 3; ++c)
      for (size_t i = 0; i < 64; ++i) place[c][i] = uint8_t((3 * i + c) % 128);
  }
};
inline const SplitTable& split_table() {
  static const SplitTable table;
  return table;
}
}  // namespace tessera
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL

using V = __m512i;
HWY_INLINE V load(const uint8_t* p) { return _mm512_loadu_si512(p); }

// Bytes to look up with, and which lanes of them have bit 6, bit 7 and both: 64 bytes are looked up by one instruction, and those
// of the next quarter of a table replace the ones that belong there.
struct Index {
  V lanes;
  __mmask64 bit6, bit7, both;
  HWY_INLINE explicit Index(V v)
      : lanes(v), bit6(_mm512_test_epi8_mask(v, _mm512_set1_epi8(64))), bit7(_mm512_movepi8_mask(v)), both(bit6 & bit7) {}
};
HWY_INLINE V look_up_half(const std::array<uint8_t, 256>& table, const Index& at) {  // below 128
  return _mm512_mask_permutexvar_epi8(_mm512_permutexvar_epi8(at.lanes, load(table.data())), at.bit6, at.lanes,
                                      load(table.data() + 64));
}
HWY_INLINE V look_up_192(const std::array<uint8_t, 256>& table, const Index& at) {  // below 192
  return _mm512_mask_permutexvar_epi8(look_up_half(table, at), at.bit7, at.lanes, load(table.data() + 128));
}
HWY_INLINE V look_up(const std::array<uint8_t, 256>& table, const Index& at) {
  return _mm512_mask_permutexvar_epi8(look_up_192(table, at), at.both, at.lanes, load(table.data() + 192));
}

// See HsvChange::apply. What one byte decides is looked up; OpenCV's (x ratio + 2048) >> 12 is a whole product and a rounded one of 16 bits;
// float32 remains where two bytes meet on the way back, with the roundings of the other kernel. Bytes are widened and packed in place, so
// that halves and quarters need no order of their own.
void hsv_span(const uint8_t* rgb, int64_t pixels, int32_t, int32_t, int32_t, const HsvChange::Tables& tables, bool mirror, uint8_t* out) {
  constexpr int64_t kLanes = 64;
  const RatioTable &by_value = saturation_ratios(), &by_spread = hue_ratios();
  const InterleaveTable& join = interleave_table(mirror);
  const SplitTable& split = split_table();
  alignas(64) uint8_t rest[3 * kLanes] = {};
  const V zero = _mm512_setzero_si512();
  const __m512 unit = _mm512_set1_ps(1.0f / 255.0f), one = _mm512_set1_ps(1.0f), full = _mm512_set1_ps(255.0f);
  // Lanes of the third vector of pixels: c + 3 i >= 128. Blue's place in the three vectors to be written.
  constexpr __mmask64 kThird[3] = {~0ull << 43, ~0ull << 43, ~0ull << 42};
  constexpr __mmask64 kBlue[3] = {0x4924924924924924ull, 0x2492492492492492ull, 0x9249249249249249ull};

  for (int64_t at = 0; at < pixels; at += kLanes) {
    const int64_t count = std::min(kLanes, pixels - at);
    const uint8_t* from = rgb + at * 3;
    if (count < kLanes) {
      std::memcpy(rest, from, size_t(count) * 3);
      from = rest;
    }
    const V in0 = load(from), in1 = load(from + 64), in2 = load(from + 128);
    const auto channel = [&](size_t c) HWY_ATTR {
      const V place = load(split.place[c].data());
      return _mm512_mask_permutexvar_epi8(_mm512_permutex2var_epi8(in0, place, in1), kThird[c], place, in2);
    };
    V r = channel(0), g = channel(1), b = channel(2);
    const V value = _mm512_max_epu8(r, _mm512_max_epu8(g, b)), spread = _mm512_sub_epi8(value, _mm512_min_epu8(r, _mm512_min_epu8(g, b)));
    const __mmask64 is_r = _mm512_cmpeq_epi8_mask(value, r), is_g = _mm512_cmpeq_epi8_mask(value, g);
    const auto by_highest = [&](V if_r, V if_g, V if_b) HWY_ATTR {
      return _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(if_b, is_g, if_g), is_r, if_r);
    };
    const V plus = by_highest(g, b, r), minus = by_highest(b, r, g), turns = by_highest(zero, _mm512_set1_epi8(2), _mm512_set1_epi8(4));

    const Index by_v(value), by_s(spread);
    // From 128 on 255 / value is below 2 and 30 / spread below 1.
    const V s_whole = _mm512_mask_mov_epi8(look_up_half(by_value.whole, by_v), by_v.bit7, _mm512_set1_epi8(1));
    const V s_low = look_up(by_value.fraction_low, by_v), s_high = look_up(by_value.fraction_high, by_v);
    const V h_whole = _mm512_mask_mov_epi8(look_up_half(by_spread.whole, by_s), by_s.bit7, zero);
    const V h_low = look_up(by_spread.fraction_low, by_s), h_high = look_up(by_spread.fraction_high, by_s);
    V saturations[2], hues[2];
    for (int half = 0; half < 2; ++half) {
      const auto pairs = [&](V low, V high) HWY_ATTR { return half == 0 ? _mm512_unpacklo_epi8(low, high) : _mm512_unpackhi_epi8(low, high); };
      const auto scaled = [&](V x, V whole, V fraction) HWY_ATTR {
        return _mm512_add_epi16(_mm512_mullo_epi16(x, whole), _mm512_mulhrs_epi16(_mm512_slli_epi16(x, 3), fraction));
      };
      const V x = pairs(spread, zero);
      saturations[half] = scaled(x, pairs(s_whole, zero), pairs(s_low, s_high));
      const V difference = _mm512_maddubs_epi16(pairs(plus, minus), _mm512_set1_epi16(int16_t(0xFF01)));  // plus - minus
      const V numerator = _mm512_add_epi16(difference, _mm512_mullo_epi16(x, pairs(turns, zero)));
      hues[half] = _mm512_add_epi16(scaled(numerator, pairs(h_whole, zero), pairs(h_low, h_high)), _mm512_set1_epi16(HsvChange::kHueOffset));
    }
    const Index saturation(_mm512_packus_epi16(saturations[0], saturations[1])), hue(_mm512_packus_epi16(hues[0], hues[1]));

    const V v1 = look_up(tables.value, by_v), hi = look_up(tables.highest, by_v), s1 = look_up(tables.saturation, saturation);
    V share[4];
    for (size_t k = 0; k < 4; ++k) share[k] = look_up_192(tables.share[k], hue);
    const V which = look_up_192(tables.channels, hue);

    V middle[2], low[2];
    for (int half = 0; half < 2; ++half) {
      const auto pairs = [&](V a, V c) HWY_ATTR { return half == 0 ? _mm512_unpacklo_epi8(a, c) : _mm512_unpackhi_epi8(a, c); };
      const V v16 = pairs(v1, zero), s16 = pairs(s1, zero), low16 = pairs(share[0], share[1]), high16 = pairs(share[2], share[3]);
      V m[2], l[2];
      for (int k = 0; k < 2; ++k) {
        const auto quads = [&](V a, V c) HWY_ATTR { return k == 0 ? _mm512_unpacklo_epi16(a, c) : _mm512_unpackhi_epi16(a, c); };
        const __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(quads(v16, zero)), unit), s = _mm512_mul_ps(_mm512_cvtepi32_ps(quads(s16, zero)), unit);
        const auto whole = [&](__m512 x) HWY_ATTR { return _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_mul_ps(v, _mm512_sub_ps(one, x)), full)); };
        m[k] = whole(_mm512_mul_ps(s, _mm512_castsi512_ps(quads(low16, high16))));
        l[k] = whole(s);
      }
      middle[half] = _mm512_packs_epi32(m[0], m[1]), low[half] = _mm512_packs_epi32(l[0], l[1]);
    }
    const V mid = _mm512_packus_epi16(middle[0], middle[1]), lo = _mm512_packus_epi16(low[0], low[1]);
    const auto chosen = [&](int c) HWY_ATTR {
      const auto has = [&](int bit) HWY_ATTR { return _mm512_test_epi8_mask(which, _mm512_set1_epi8(int8_t(1 << bit))); };
      return _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(hi, has(c), mid), has(c + 3), lo);
    };
    r = chosen(0), g = chosen(1), b = chosen(2);

    uint8_t* const to = count < kLanes ? rest : out + (mirror ? pixels - at - kLanes : at) * 3;
    for (size_t k = 0; k < 3; ++k) {
      const V two = _mm512_permutex2var_epi8(r, load(join.of_two[k].data()), g);
      _mm512_storeu_si512(to + 64 * k, _mm512_mask_permutexvar_epi8(two, kBlue[k], load(join.of_blue[k].data()), b));
    }
    if (count < kLanes) std::memcpy(mirror ? out : out + at * 3, mirror ? rest + (kLanes - count) * 3 : rest, size_t(count) * 3);
  }
}

#else

// See HsvChange::apply. Bytes are handled a whole vector at a time, the arithmetic between in float32 lanes, where all of it is exact or
// rounded as OpenCV rounds: the tables of OpenCV are replaced by what they tabulate, round(1044480 / V) and round(122880 / diff). Of the
// way back only the middle and the lowest channel need arithmetic; the sector of the hue says which channel is which.
void hsv_span(const uint8_t* rgb, int64_t pixels, int32_t hue_shift, int32_t saturation_gain, int32_t value_gain, const HsvChange::Tables&,
              bool mirror, uint8_t* out) {
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

#endif

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
    : hue_shift_(whole_shift(draw.hue)), saturation_gain_(gain(draw.saturation)), value_gain_(gain(draw.value)) {
  const auto gained = [](size_t x, int32_t gain) { return uint8_t(std::min((int32_t(x) * gain) >> kHsvGainBits, 255)); };
  for (size_t x = 0; x < 256; ++x) {
    tables_.value[x] = gained(x, value_gain_);
    tables_.saturation[x] = gained(x, saturation_gain_);
    tables_.highest[x] = uint8_t(float(tables_.value[x]) * (1.0f / 255.0f) * 255.0f);
    const int hue = (int(x) - kHueOffset + hue_shift_ + 360) % 180;
    const float h6 = float(hue) * (6.0f / 180.0f), sector = std::floor(h6), part = h6 - sector;
    const auto share = std::bit_cast<uint32_t>(int(sector) % 2 != 0 ? part : 1 - part);
    for (size_t k = 0; k < 4; ++k) tables_.share[k][x] = uint8_t(share >> 8 * k);
    // Sectors 0..5: red hi mid lo lo mid hi, green mid hi hi mid lo lo, blue lo lo mid hi hi mid.
    constexpr uint8_t kMiddle[6] = {2, 1, 4, 2, 1, 4}, kLowest[6] = {4, 4, 1, 1, 2, 2};
    tables_.channels[x] = uint8_t(kMiddle[size_t(sector)] | kLowest[size_t(sector)] << 3);
  }
}

void HsvChange::apply(const uint8_t* rgb, int64_t pixels, bool mirror, uint8_t* out) const {
  if (pixels > 0) HWY_DYNAMIC_DISPATCH(hsv_span)(rgb, pixels, hue_shift_, saturation_gain_, value_gain_, tables_, mirror, out);
}

void augment_hsv(Image& image, const HsvDraw& draw) {
  HsvChange(draw).apply(image.pixels.data(), int64_t(image.height) * image.width, false, image.pixels.data());
}

}  // namespace tessera
#endif  // HWY_ONCE
