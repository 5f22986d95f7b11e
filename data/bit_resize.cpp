// A source row is brought to the target's width once, as 16-bit sums; each row of the target is a comparison of two of them.
#include "data/bit_resize.h"

#include <algorithm>
#include <cstring>

#include "data/resize_taps.h"
#include "tensor/bit_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/bit_resize.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Of each output: (w0, where bit0 is set in the source, + w1, where bit1 is) / 16. line: the source row, columns moved by `shift`.
void sum_taps(const uint32_t* line, int shift, const BlockTaps& taps, int blocks, uint16_t* sums) {
  const hn::CappedTag<int32_t, kBlockOutputs> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  size_t x = 0;
  for (int b = 0; b < blocks; ++b) {
    const int first = taps.first[b] + shift;
    uint64_t source;
    std::memcpy(&source, reinterpret_cast<const char*>(line) + first / 8, sizeof(source));
    const auto bits = hn::Set(d, int32_t(source >> first % 8));
    for (const size_t end = x + kBlockOutputs; x < end; x += hn::Lanes(d)) {
      const auto left = hn::IfThenElseZero(hn::TestBit(bits, hn::LoadU(d, taps.bit0 + x)), hn::LoadU(d, taps.w0 + x));
      const auto right = hn::IfThenElseZero(hn::TestBit(bits, hn::LoadU(d, taps.bit1 + x)), hn::LoadU(d, taps.w1 + x));
      hn::StoreU(hn::DemoteTo(d16, hn::ShiftRight<4>(hn::Add(left, right))), d16, sums + x);
    }
  }
}

// Words of bits: whether (w0 upper >> 16) + (w1 lower >> 16) is at least 2, which rounds to 1.
void blend_sums(const uint16_t* upper, const uint16_t* lower, uint16_t w0, uint16_t w1, int64_t words, uint32_t* out) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t w = 0; w < words; ++w, upper += kBitsOfWord, lower += kBitsOfWord) {
    out[w] = 0;
    for (int x = 0; x < kBitsOfWord; ++x) {
      out[w] |= uint32_t((uint32_t{w0} * upper[x] >> 16) + (uint32_t{w1} * lower[x] >> 16) >= 2) << x;
    }
  }
#else
  const hn::CappedTag<uint16_t, kBitsOfWord> d;
  const auto a = hn::Set(d, w0), b = hn::Set(d, w1), one = hn::Set(d, 1);
  uint8_t* bytes = reinterpret_cast<uint8_t*>(out);
  for (int64_t x = 0; x < words * kBitsOfWord; x += int64_t(hn::Lanes(d))) {
    const auto sum = hn::Add(hn::MulHigh(a, hn::LoadU(d, upper + x)), hn::MulHigh(b, hn::LoadU(d, lower + x)));
    bytes += hn::StoreMaskBits(d, hn::Gt(sum, one), bytes);
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

namespace {

HWY_EXPORT(sum_taps);
HWY_EXPORT(blend_sums);

int first_from(const std::vector<int>& taps, int column) {
  return int(std::lower_bound(taps.begin(), taps.end(), column) - taps.begin());
}

}  // namespace

// Rows [y, end) of the source, which are the same, at the target's width.
struct BitResize::Row {
  int y = -1, end = -1;
  std::vector<uint32_t> line;  // the row between words of zeros
  std::vector<uint16_t> sums;
  bool holds(int row) const { return row >= y && row < end; }
};

BitResize::BitResize(int in_height, int in_width, int height, int width) {
  // An image of twice the size is averaged by areas; with these weights the sums count its pixels.
  const bool halves = in_height == 2 * height && in_width == 2 * width;
  constexpr int kPixelAcross = 32, kPixelDown = 1 << 15;
  Columns& c = columns_;
  const size_t padded = size_t(words_of_row(width)) * kBitsOfWord;
  c.bit0.resize(padded), c.bit1.resize(padded), c.w0.resize(padded), c.w1.resize(padded);
  for_each_tap(in_width, width, true, [&](int o, int i0, int i1, float f) {
    if (o % kBlockOutputs == 0) c.first.push_back(i0);
    const int at0 = i0 - c.first.back(), at1 = i1 - c.first.back();
    c.blocks_fit = c.blocks_fit && at1 < kBitsOfWord;
    c.i0.push_back(i0), c.i1.push_back(i1);
    if (c.blocks_fit) c.bit0[size_t(o)] = int32_t(1u << at0), c.bit1[size_t(o)] = int32_t(1u << at1);
    c.w0[size_t(o)] = halves ? kPixelAcross : tap_weight(1.0f - f), c.w1[size_t(o)] = halves ? kPixelAcross : tap_weight(f);
  });
  for_each_tap(in_height, height, false, [&](int, int i0, int i1, float f) {
    rows_.i0.push_back(i0), rows_.i1.push_back(i1);
    rows_.w0.push_back(uint16_t(halves ? kPixelDown : tap_weight(1.0f - f))),
        rows_.w1.push_back(uint16_t(halves ? kPixelDown : tap_weight(f)));
  });
}

PixelBox BitResize::reach(const PixelBox& from) const {
  const int x0 = first_from(columns_.i1, from.x0);
  return {x0 / kBitsOfWord * kBitsOfWord, first_from(rows_.i1, from.y0), first_from(columns_.i0, from.x1),
          first_from(rows_.i0, from.y1)};
}

void BitResize::sum_row(const uint32_t* words, const PixelBox& from, const PixelBox& to, Row& row) const {
  constexpr int kMargin = 4;  // words: further than a block's columns reach from the rectangle
  const int64_t row_words = words_of_row(from.width());
  row.line.assign(size_t(row_words + 2 * kMargin), 0);
  std::copy_n(words, row_words, row.line.begin() + kMargin);
  row.sums.resize(size_t(words_of_row(to.width())) * kBitsOfWord);
  uint16_t* sums = row.sums.data();
  if (!columns_.blocks_fit) {
    const auto is_set = [&](int column) {
      const int x = column - from.x0;
      return x >= 0 && x < from.width() ? int(words[x / kBitsOfWord] >> (x % kBitsOfWord) & 1) : 0;
    };
    for (size_t x = size_t(to.x0); x < size_t(to.x1); ++x) {
      *sums++ = uint16_t((is_set(columns_.i0[x]) * columns_.w0[x] + is_set(columns_.i1[x]) * columns_.w1[x]) >> 4);
    }
    return;
  }
  const size_t x = size_t(to.x0);
  const BlockTaps taps{&columns_.first[x / kBlockOutputs], &columns_.bit0[x], &columns_.bit1[x], &columns_.w0[x], &columns_.w1[x]};
  const int blocks = (to.width() + kBlockOutputs - 1) / kBlockOutputs;
  HWY_DYNAMIC_DISPATCH(sum_taps)(row.line.data(), kMargin * kBitsOfWord - from.x0, taps, blocks, sums);
}

void BitResize::operator()(const uint32_t* words, const PixelBox& from, const PixelBox& to, uint32_t* out) const {
  thread_local Row rows[2];
  thread_local std::vector<uint16_t> zeros;
  const int64_t in_words = words_of_row(from.width()), out_words = words_of_row(to.width());
  const uint32_t last_used = ~0u >> (out_words * kBitsOfWord - to.width());
  zeros.assign(size_t(out_words) * kBitsOfWord, 0);
  for (Row& r : rows) r.y = r.end = -1;
  const auto source = [&](int y) { return words + (y - from.y0) * in_words; };
  const auto sums_of = [&](int y) -> const uint16_t* {
    if (y < from.y0 || y >= from.y1) return zeros.data();
    for (Row& r : rows) {
      if (r.holds(y)) return r.sums.data();
      if (r.holds(y - 1) && std::memcmp(source(y - 1), source(y), size_t(in_words) * sizeof(uint32_t)) == 0) {
        r.end = y + 1;
        return r.sums.data();
      }
    }
    Row& r = rows[rows[0].holds(y - 1) ? 1 : 0];
    r.y = y, r.end = y + 1;
    sum_row(source(y), from, to, r);
    return r.sums.data();
  };
  for (int y = to.y0; y < to.y1; ++y, out += out_words) {
    const uint16_t *const upper = sums_of(rows_.i0[size_t(y)]), *const lower = sums_of(rows_.i1[size_t(y)]);
    HWY_DYNAMIC_DISPATCH(blend_sums)(upper, lower, rows_.w0[size_t(y)], rows_.w1[size_t(y)], out_words, out);
    out[out_words - 1] &= last_used;
  }
}

}  // namespace tessera
#endif  // HWY_ONCE
