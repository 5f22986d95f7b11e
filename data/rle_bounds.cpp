#include "data/rle_bounds.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "tensor/bit_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/rle_bounds.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kBandRows = 64;

// Bit y of columns[x] is bit x of rows[y]. With byte k of many rows in one vector, the highest bits of its lanes are column 8 k + 7, and
// so on downwards with every doubling.
void turn(const uint32_t* rows, uint64_t* columns) {
#if HWY_TARGET == HWY_SCALAR
  for (int x = 0; x < kBitsOfWord; ++x) {
    columns[x] = 0;
    for (int y = 0; y < kBandRows; ++y) columns[x] |= uint64_t{rows[y] >> x & 1} << y;
  }
#else
  const hn::CappedTag<uint8_t, kBandRows> d;
  const hn::RebindToSigned<decltype(d)> di;
  for (int y = 0; y < kBandRows; y += int(hn::Lanes(d))) {
    hn::Vec<decltype(d)> byte[4];
    hn::LoadInterleaved4(d, reinterpret_cast<const uint8_t*>(rows + y), byte[0], byte[1], byte[2], byte[3]);
    for (int x = kBitsOfWord; x-- > 0;) {
      auto& lanes = byte[x / 8];
      hn::StoreMaskBits(di, hn::Lt(hn::BitCast(di, lanes), hn::Zero(di)), reinterpret_cast<uint8_t*>(columns + x) + y / 8);
      lanes = hn::Add(lanes, lanes);
    }
  }
#endif
}

// Appends first + the positions of the set bits; writes up to kAtOnce values more. How many there are is a coin toss to the branch
// predictor, so some are written whether there are so many or not.
constexpr int kAtOnce = 4;
uint32_t* append_positions(uint64_t bits, uint32_t first, uint32_t* out) {
  uint32_t* const end = out + std::popcount(bits);
  const auto next = [&]() HWY_ATTR {
    const int lowest = std::countr_zero(bits | uint64_t{1} << (kBandRows - 1));  // never of 0, which would be a branch
    bits &= bits - 1;
    return first + uint32_t(lowest);
  };
  for (int i = 0; i < kAtOnce; ++i) out[i] = next();
  for (uint32_t* more = out + kAtOnce; more < end; ++more) *more = next();
  return end;
}

// The words of every row, and of zeros behind the last, xor those of the row above: changes, of which the open ends are closed. Rows
// of zeros fill the last band up.
void set_differences(const BitRectangle& mask, int64_t row_words, int bands, std::vector<uint32_t>& differences) {
  const size_t words = size_t(mask.rows * row_words), filled = words + size_t(row_words);
  differences.resize(size_t(bands * kBandRows * row_words) + hn::Lanes(hn::ScalableTag<uint32_t>()));  // a vector may reach beyond a row
  std::copy_n(mask.words, row_words, differences.begin());
  for (size_t i = size_t(row_words); i < words; ++i) differences[i] = mask.words[i - size_t(row_words)] ^ mask.words[i];
  std::copy_n(mask.words + words - row_words, row_words, differences.data() + words);
  std::fill(differences.begin() + std::ptrdiff_t(filled), differences.end(), 0);
}

// By band and word: the columns with a change.
void set_changed(const std::vector<uint32_t>& differences, int64_t row_words, int bands, std::vector<uint32_t>& changed) {
  const hn::ScalableTag<uint32_t> d;
  changed.resize(size_t(bands * row_words) + hn::Lanes(d));
  for (int band = 0; band < bands; ++band) {
    const uint32_t* const first = differences.data() + band * kBandRows * row_words;
    for (int64_t w = 0; w < row_words; w += int64_t(hn::Lanes(d))) {
      auto any = hn::Zero(d);
      for (int y = 0; y < kBandRows; ++y) any = hn::Or(any, hn::LoadU(d, first + y * row_words + w));
      hn::StoreU(any, d, changed.data() + band * row_words + w);
    }
  }
}

// Where a word changes within a band of rows, its differences are turned, so that each column has its own in one word from top to bottom.
std::span<const uint32_t> FindBounds(const BitRectangle& mask) {
  const int64_t row_words = words_of_row(mask.columns);
  const int bands = mask.rows / kBandRows + 1;
  thread_local std::vector<uint32_t> differences, changed, bounds;
  thread_local std::vector<uint64_t> turned;
  set_differences(mask, row_words, bands, differences);
  set_changed(differences, row_words, bands, changed);
  turned.resize(size_t(bands * kBitsOfWord));
  size_t n = 0;
  for (int64_t w = 0; w < row_words; ++w) {
    uint32_t columns = 0;  // with a change
    for (int band = 0; band < bands; ++band) {
      uint64_t* const of_band = turned.data() + band * kBitsOfWord;
      const uint32_t here = changed[size_t(band * row_words + w)];
      columns |= here;
      if (here == 0) {
        std::fill_n(of_band, kBitsOfWord, 0);
        continue;
      }
      uint32_t rows[kBandRows];
      for (int y = 0; y < kBandRows; ++y) rows[y] = differences[size_t((band * kBandRows + y) * row_words + w)];
      turn(rows, of_band);
    }
    const size_t most = n + size_t(kBitsOfWord * bands * kBandRows + kAtOnce);
    if (bounds.size() < most) bounds.resize(most);
    uint32_t* out = bounds.data() + n;
    for (; columns != 0; columns &= columns - 1) {
      const int column = std::countr_zero(columns);
      const uint32_t top = mask.first + uint32_t(w * kBitsOfWord + column) * mask.height;
      uint64_t& first = turned[size_t(column)];
      if (out != bounds.data() && out[-1] == top && (first & 1) != 0) --out, first ^= 1;  // goes on from the column before
      for (int band = 0; band < bands; ++band) {
        out = append_positions(turned[size_t(band * kBitsOfWord + column)], top + uint32_t(band * kBandRows), out);
      }
    }
    n = size_t(out - bounds.data());
  }
  return std::span(bounds).first(n);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

HWY_EXPORT(FindBounds);

std::span<const uint32_t> find_bounds(const BitRectangle& mask) { return HWY_DYNAMIC_DISPATCH(FindBounds)(mask); }

}  // namespace tessera
#endif  // HWY_ONCE
