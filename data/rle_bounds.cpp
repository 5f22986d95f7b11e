#include "data/rle_bounds.h"

#include <algorithm>
#include <bit>
#include <utility>
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

// Bit y of columns[x] is bit x of rows[y]. With byte k of many rows in one vector, the highest bits of its lanes are column 8 k +
// 7, and so on downwards with every doubling.
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

// By band and word: the columns that differ from the row above; a row of zeros before the first and behind the last closes what is
// open.
void set_changed(const BitRectangle& mask, int64_t row_words, std::vector<uint32_t>& changed) {
  const hn::ScalableTag<uint32_t> d;
  const int64_t lanes = int64_t(hn::Lanes(d)), reach = (row_words + lanes - 1) / lanes * lanes;  // of the vectors of a row
  const int bands = mask.rows / kBandRows + 1;
  const int safe = int(std::max<int64_t>(mask.rows - (reach - 1) / row_words, 1));  // from here on they would reach behind the mask
  changed.assign(size_t(bands * row_words + reach), 0);
  const auto of_band = [&](int y) HWY_ATTR { return changed.data() + y / kBandRows * row_words; };
  for (int band = 0; band < bands; ++band) {
    uint32_t* const own = of_band(band * kBandRows);
    for (int64_t w = 0; w < row_words; w += lanes) {
      auto any = hn::Zero(d);
      for (int y = std::max(band * kBandRows, 1); y < std::min((band + 1) * kBandRows, safe); ++y) {
        const uint32_t* const row = mask.words + y * row_words + w;
        any = hn::Or(any, hn::Xor(hn::LoadU(d, row), hn::LoadU(d, row - row_words)));
      }
      hn::StoreU(any, d, own + w);
    }
  }
  std::fill_n(changed.end() - std::ptrdiff_t(reach), reach, 0);
  for (int y = safe; y < mask.rows; ++y) {
    const uint32_t* const row = mask.words + y * row_words;
    for (int64_t w = 0; w < row_words; ++w) of_band(y)[w] |= row[w - row_words] ^ row[w];
  }
  const uint32_t* const last = mask.words + (mask.rows - 1) * row_words;
  for (int64_t w = 0; w < row_words; ++w) of_band(0)[w] |= mask.words[w], of_band(mask.rows)[w] |= last[w];
}

// Turns the differences of word w in a band of rows.
void turn_differences(const BitRectangle& mask, int64_t row_words, int band, int64_t w, uint64_t* columns) {
  uint32_t differences[kBandRows] = {};
  const int first = band * kBandRows, rows = std::min(mask.rows - first, kBandRows);
  const uint32_t* word = mask.words + first * row_words + w;
  uint32_t above = band == 0 ? 0 : word[-row_words];
  for (int y = 0; y < rows; ++y, word += row_words) differences[y] = std::exchange(above, *word) ^ *word;
  if (rows < kBandRows) differences[rows] = above;
  turn(differences, columns);
}

// Where a word changes within a band, its differences are turned, so that each column has its own in one word from top to bottom.
std::span<const uint32_t> FindBounds(const BitRectangle& mask) {
  const int64_t row_words = words_of_row(mask.columns);
  const int bands = mask.rows / kBandRows + 1;
  struct Turned {
    uint32_t first_row;
    uint64_t columns[kBitsOfWord];
  };
  thread_local std::vector<uint32_t> changed, bounds;
  thread_local std::vector<Turned> turned;  // of a word, the bands that change
  set_changed(mask, row_words, changed);
  size_t n = 0;
  for (int64_t w = 0; w < row_words; ++w) {
    uint32_t columns = 0;  // with a change
    turned.clear();
    for (int band = 0; band < bands; ++band) {
      const uint32_t here = changed[size_t(band * row_words + w)];
      if (here == 0) continue;
      columns |= here;
      Turned& t = turned.emplace_back();
      t.first_row = uint32_t(band * kBandRows);
      turn_differences(mask, row_words, band, w, t.columns);
    }
    const size_t most = n + turned.size() * size_t(kBitsOfWord * kBandRows) + kAtOnce;
    if (bounds.size() < most) bounds.resize(most);
    uint32_t* out = bounds.data() + n;
    for (; columns != 0; columns &= columns - 1) {
      const int column = std::countr_zero(columns);
      const uint32_t top = mask.first + uint32_t(w * kBitsOfWord + column) * mask.height;
      uint64_t& first = turned[0].columns[column];
      if (n > 0 && out[-1] == top && turned[0].first_row == 0 && (first & 1) != 0)
        --out, first ^= 1;  // goes on from the column before
      for (const Turned& t : turned) out = append_positions(t.columns[column], top + t.first_row, out);
      n = size_t(out - bounds.data());
    }
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
