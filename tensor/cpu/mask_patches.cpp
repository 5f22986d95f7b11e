// Pixels of masks on the host. Rows of prototypes are turned by channel, once for all masks of an image, and of tiles of cells it is
// noted how far they lie from a middle: a mask whose logits have one sign in all cells of a tile often shows it by the middle alone
// (Note [Tiles]). Logits are computed where that leaves a sign open, strip by strip for the masks of a group together: a tile is
// loaded once for several masks. Where four cells around pixels agree, so do the pixels (`Row`): words of bits between contours are
// filled without arithmetic.
//
// Only signs are asked for. So logits are summed with fused multiply-adds, half the instructions of the definition, and a pixel
// that rounding may have decided is computed again as defined (Note [Doubt]).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/mask_patches.cpp"
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/bilinear.h"
#include "tensor/cpu/highway.h"
#include "tensor/ops/detect_math.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/mask_tiles-inl.h"
#include "tensor/cpu/vec_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kMasksAtOnce = 48, kWordsAtOnce = int64_t{1} << 20;  // of a group
constexpr int kWord = kBitsOfWord, kVectors = kWord / int(kLanes);
static_assert(kWord % int(kLanes) == 0);

enum Pixels : uint8_t { kNone, kAll, kSome };  // of a word above 0

// A bit for each column of a mask's tiles, and those of them that a word of the target takes.
using TileBits = std::conditional_t<kLanes == 16, uint16_t, uint8_t>;
struct CellBits {
  std::vector<TileBits> above, sure;
};
// Columns [begin, end) of the tile that begins in column `at`.
TileBits tile_bits(int begin, int end, int at) {
  const auto before = [&](int x) { return (1u << std::clamp(x - at, 0, int(kLanes))) - 1; };
  return TileBits(before(end) & ~before(begin));
}
struct CellSpan {
  int byte, shift;
  uint64_t all;  // 0: too many for one load

  static constexpr int kMost = 57;
  CellSpan(int first, int count) : byte(first / 8), shift(first % 8), all(count <= kMost ? (uint64_t{1} << count) - 1 : 0) {}
  uint64_t of(const std::vector<TileBits>& bits) const {
    uint64_t v;
    std::memcpy(&v, reinterpret_cast<const uint8_t*>(bits.data()) + byte, sizeof(v));
    return v >> shift & all;
  }
};

// What the kernel needs of one row of cells of a mask: the logits and how they bear on each word.
struct Row {
  std::vector<float> memory;  // with a vector's room before the first column
  int from, to;               // columns inside of the crop; the others are 0
  float doubt;                // a logit no further from 0 may have another sign than the definition's; 0: they are as defined
  float* logits() { return memory.data() + kWord; }  // by column of the slice
  const float* logits() const { return memory.data() + kWord; }
  Pixels all;  // of all words; kSome: as `words` say
  std::vector<Pixels> words;
};

// What the masks of an image have in common.
struct ImageCells {
  const ImageView& prototypes;
  int64_t image;
  int begin = 0, end = 0, first_row = 0, end_row = 0;  // columns and rows of the prototypes that its masks need
  Cells* rows = nullptr;                               // from first_row on
  TileBounds* bounds = nullptr;

  int strips() const { return (end_row - first_row + kTileRows - 1) / kTileRows; }
  int tiles() const { return (end - begin + int(kLanes) - 1) / int(kLanes); }
  bool has_cells() const { return prototypes.c % 8 == 0; }
};

// A tile's columns, counted from the first tile of its mask, from `first` to `last`.
struct TileRange {
  int first, last;
};

// One mask on its way through the rows of its slice.
struct Mask {
  const MaskItem* item;
  const float* k;
  float sum;  // of the magnitudes of k
  uint32_t* words;
  const BilinearAxis *ax, *ay;  // of the whole target and a word more; null: it has the size of the slice
  int first_row, end_row;       // of the slice, that are needed
  int first_cell, end_cell;     // and columns
  int next;                     // row of the target
  std::vector<CellSpan> spans;  // of each word of a row, where there are axes
  Row rows[kTileRows + 1];      // those of a strip and the last one before; use row_of()

  // Tiles that it needs: columns, the first of which begins in column `left` of the slice, and strips, in those of the image.
  int first_tile, tiles, left;
  int first_strip, strips;
  std::vector<TileBits> needed, inside;  // of each tile, the columns that are, and those inside of the crop
  bool by_tiles;                        // what follows is known; else every sign is open
  std::vector<TileRange> word_tiles;    // under each word of a row
  std::vector<uint64_t> above, none;    // of each column, a bit for each strip: the signs of a tile are known
  std::vector<uint64_t> wanted;         // and where its logits are needed
  uint64_t all_above, all_none;         // strips in which that holds for all tiles

  int64_t row_words() const { return words_of_row(item->where.width()); }
  uint32_t* row(int y) const { return words + (y - item->where.y0) * row_words(); }
  // Of the bits of word w, those that are columns.
  uint32_t used(int64_t w) const {
    const int64_t columns = item->where.width() - w * kWord;
    return columns >= kWord ? ~0u : (1u << columns) - 1;
  }
  Row& row_of(int y) { return rows[(y + item->slice.y0) % (kTileRows + 1)]; }
  bool wants(int tile, int strip) const { return !by_tiles || (wanted[size_t(tile)] >> strip & 1) != 0; }
  uint64_t all_strips() const { return ~uint64_t{0} >> (kMostStrips - strips); }
};

// An item that is not empty.
void begin(Mask& m, const ImageCells& g, const MaskItem& item, const BilinearAxis* ax, const BilinearAxis* ay) {
  const PixelBox& w = item.where;
  m.item = &item, m.ax = ax, m.ay = ay, m.next = w.y0;
  m.first_row = w.y0, m.end_row = w.y1, m.first_cell = w.x0, m.end_cell = w.x1;
  if (ax != nullptr) {
    m.first_row = ay->i0[size_t(w.y0)], m.end_row = ay->i1[size_t(w.y1) - 1] + 1;
    m.first_cell = ax->i0[size_t(w.x0)], m.end_cell = ax->i1[size_t(w.x1) - 1] + 1;
  }
  const int to_image = item.slice.x0 - g.begin;
  m.first_tile = (m.first_cell + to_image) / int(kLanes), m.left = m.first_tile * int(kLanes) - to_image;
  m.tiles = (m.end_cell - m.left + int(kLanes) - 1) / int(kLanes);
  m.first_strip = (m.first_row + item.slice.y0 - g.first_row) / kTileRows;
  m.strips = (m.end_row - 1 + item.slice.y0 - g.first_row) / kTileRows + 1 - m.first_strip;
  const int crop_begin = std::max(item.crop.x0 - item.slice.x0, m.first_cell), crop_end = item.crop.x1 - item.slice.x0;
  m.needed.resize(size_t(m.tiles)), m.inside.resize(size_t(m.tiles));
  for (int tile = 0, x = m.left; tile < m.tiles; ++tile, x += int(kLanes)) {
    m.needed[size_t(tile)] = tile_bits(m.first_cell, m.end_cell, x);
    m.inside[size_t(tile)] = tile_bits(crop_begin, std::min(crop_end, m.end_cell), x);
  }
  m.spans.clear(), m.word_tiles.clear();
  for (int x = w.x0; x < w.x1; x += kWord) {
    const int last = std::min(x + kWord, w.x1) - 1;
    const int from = ax != nullptr ? ax->i0[size_t(x)] : x, to = ax != nullptr ? ax->i1[size_t(last)] : last;
    if (ax != nullptr) m.spans.emplace_back(from - m.left, to + 1 - from);
    m.word_tiles.push_back({(from - m.left) / int(kLanes), (to - m.left) / int(kLanes)});
  }
  for (Row& r : m.rows) {
    r.memory.resize(size_t(item.slice.width() + 2 * kWord));
    r.words.resize(size_t(m.row_words()));
  }
}

// Finds out in which tiles the signs are known. Where they are so in none of the middle column, no more are looked at: then
// coefficients and prototypes are as a rule too uneven everywhere.
void look_at_tiles(Mask& m, const ImageCells& g) {
  const MaskItem& item = *m.item;
  m.by_tiles = false;
  if (!g.has_cells() || m.tiles > kMostTiles || m.strips > kMostStrips) return;
  const int lanes = int(kLanes);
  m.above.assign(size_t(m.tiles), 0), m.none.assign(size_t(m.tiles), 0), m.wanted.assign(size_t(m.tiles), 0);
  for (int i = 0; i < m.tiles; ++i) {
    const int tile = (m.tiles / 2 + i) % m.tiles;
    uint64_t above = 0, none = 0;
    for (int v = m.first_strip / lanes; v * lanes < m.first_strip + m.strips; ++v) {
      const TileBounds::Signs signs = g.bounds->signs(m.first_tile + tile, v, m.k, m.sum);
      const auto place = [&](uint64_t bits) {
        const int at = v * lanes - m.first_strip;
        return at < 0 ? bits >> -at : bits << at;
      };
      above |= place(signs.above), none |= place(signs.none);
    }
    above &= m.all_strips(), none &= m.all_strips();
    if (i == 0 && (above | none) == 0) return;
    m.above[size_t(tile)] = above, m.none[size_t(tile)] = none;
  }
  // Cells outside of the crop are 0, which is not above.
  const auto overlap = [](int a0, int a1, int b0, int b1) { return std::min(a1, b1) - std::max(a0, b0); };
  uint64_t rows_inside = 0, rows_outside = 0;
  for (int i = 0; i < m.strips; ++i) {
    const int y = g.first_row + (m.first_strip + i) * kTileRows;
    const int y0 = std::max(y, m.first_row + item.slice.y0), y1 = std::min(y + kTileRows, m.end_row + item.slice.y0);
    const int common = overlap(y0, y1, item.crop.y0, item.crop.y1);
    rows_inside |= uint64_t{common == y1 - y0} << i, rows_outside |= uint64_t{common <= 0} << i;
  }
  m.all_above = m.all_none = m.all_strips();
  for (int tile = 0; tile < m.tiles; ++tile) {
    const int x = m.left + tile * lanes, x0 = std::max(x, m.first_cell), x1 = std::min(x + lanes, m.end_cell);
    const int common = overlap(x0 + item.slice.x0, x1 + item.slice.x0, item.crop.x0, item.crop.x1);
    m.above[size_t(tile)] &= common == x1 - x0 ? rows_inside : 0;
    m.none[size_t(tile)] |= common <= 0 ? m.all_strips() : rows_outside;
    m.all_above &= m.above[size_t(tile)], m.all_none &= m.none[size_t(tile)];
  }
  // A word is filled where all cells agree that it takes something from, in the rows next to its own too.
  const auto with_neighbours = [&](uint64_t strips) {
    return m.ax == nullptr ? strips : strips & (strips << 1 | 1) & (strips >> 1 | uint64_t{1} << (m.strips - 1));
  };
  for (const TileRange& range : m.word_tiles) {
    uint64_t above = m.all_strips(), none = above;
    for (int tile = range.first; tile <= range.last; ++tile) above &= m.above[size_t(tile)], none &= m.none[size_t(tile)];
    const uint64_t open = m.all_strips() & ~(with_neighbours(above) | with_neighbours(none));
    for (int tile = range.first; tile <= range.last; ++tile) m.wanted[size_t(tile)] |= open;
  }
  m.by_tiles = true;
}

// Whether some of the rows [begin, end) of the slice are needed: of a target that is smaller, some lie between two of its rows.
bool needs_rows(const Mask& m, int begin, int end) {
  return end > (m.ax == nullptr ? m.first_row : m.ay->i0[size_t(m.next)]) && begin < m.end_row;
}

// The logits of row y of the slice inside of the crop are those of its strip, or, where these are no use, taken here as defined.
void finish_logits(const Mask& m, const ImageCells& g, int y, Row& r) {
  const MaskItem& item = *m.item;
  const ImageView& p = g.prototypes;
  const int left = item.slice.x0, row = y + item.slice.y0;
  const bool inside = row >= item.crop.y0 && row < item.crop.y1;
  r.from = inside ? std::clamp(item.crop.x0 - left, m.first_cell, m.end_cell) : m.end_cell;
  r.to = std::clamp(item.crop.x1 - left, r.from, m.end_cell);
  r.doubt = 0;
  std::fill(r.logits() + m.first_cell, r.logits() + r.from, 0.0f);
  std::fill(r.logits() + r.to, r.logits() + m.end_cell, 0.0f);
  if (r.from == r.to) return;
  const float sum = g.has_cells() ? m.sum * g.rows[row - g.first_row].largest() : std::numeric_limits<float>::infinity();
  if (std::isfinite(sum)) {
    r.doubt = sum > 0 ? doubt_of_sum(p.c) * sum + kDoubt : 0;
  } else {
    const float* const cells = data<float>(p) + ((item.image * p.h + row) * p.w + left) * p.pitch;
    for (int x = r.from; x < r.to; ++x) r.logits()[x] = detect_math::mask_logit(m.k, cells + x * p.pitch, int(p.c));
  }
}


// How a row of strip `strip` of the mask bears on each word. Known signs of a tile go before those of logits, which rounding may
// have brought nearer to 0.
void set_words(const Mask& m, int strip, Row& row) {
  row.all = kNone;
  if (row.from == row.to) return;
  thread_local CellBits bits;
  const size_t most = size_t(m.tiles) + 8;
  if (bits.above.size() < most) bits.above.resize(most), bits.sure.resize(most);
  TileBits* const above_bits = bits.above.data();
  TileBits* const sure_bits = bits.sure.data();
  const V least = splat(-row.doubt), surely = splat(std::max(row.doubt, kSurelyAbove)), finite = splat(kSurelyFinite);
  const float* const logits = row.logits() + m.left;
  uint32_t any = 0, unsure = 0;
  for (size_t tile = 0; tile < size_t(m.tiles); ++tile) {
    uint32_t above, sure;
    if (m.by_tiles && ((m.above[tile] | m.none[tile]) >> strip & 1) != 0) {
      above = sure = (m.above[tile] >> strip & 1) != 0 ? ~0u : 0;
    } else {
      const V v = load(logits + tile * kLanes);
      above = ~bits_of(hn::Lt(v, least)) & m.inside[tile];  // may be
      sure = bits_of(hn::And(hn::Ge(v, surely), hn::Le(v, finite)));
    }
    above_bits[tile] = TileBits(above), sure_bits[tile] = TileBits(sure);
    any |= above & m.needed[tile];
    unsure |= ~sure & m.needed[tile];
  }
  row.all = any == 0 ? kNone : kAll;
  if (any == 0 || unsure == 0) return;
  for (size_t w = 0; w < m.spans.size(); ++w) {
    const CellSpan& span = m.spans[w];
    Pixels pixels = kSome;
    if (span.all != 0) {
      if (span.of(bits.above) == 0) pixels = kNone;
      if (span.of(bits.sure) == span.all) pixels = kAll;
    }
    row.words[w] = pixels;
    if (pixels != kAll) row.all = kSome;
  }
}

// Of the outputs x .. x + kLanes - 1 of a row of cells.
HWY_INLINE V horizontal(const BilinearAxis& ax, size_t x, const float* logits) {
  const hn::RebindToSigned<F32> i32;
  const auto i0 = hn::LoadU(i32, ax.i0.data() + x), i1 = hn::LoadU(i32, ax.i1.data() + x);
  const int base = ax.i0[x];
  V a, b;
  if (ax.i1[x + kLanes - 1] - base < int(kLanes)) {  // one vector has them all
    const V cells = load(logits + base);
    const auto from = hn::Set(i32, base);
    a = hn::TableLookupLanes(cells, hn::IndicesFromVec(F32(), hn::Sub(i0, from)));
    b = hn::TableLookupLanes(cells, hn::IndicesFromVec(F32(), hn::Sub(i1, from)));
  } else {
    a = hn::GatherIndex(F32(), logits, i0), b = hn::GatherIndex(F32(), logits, i1);
  }
  return hn::Add(hn::Mul(load(ax.w0.data() + x), a), hn::Mul(load(ax.w1.data() + x), b));
}

// Logits as defined of the cells that bits of word w take from row y, by column of the slice.
const float* defined_logits(const Mask& m, const ImageCells& g, int y, int64_t w, uint32_t bits, std::vector<float>& memory) {
  const MaskItem& item = *m.item;
  const ImageView& p = g.prototypes;
  const int left = item.where.x0 + int(w) * kWord, x0 = left + std::countr_zero(bits), x1 = left + std::bit_width(bits);
  const int begin = m.ax == nullptr ? x0 : m.ax->i0[size_t(x0)], end = m.ax == nullptr ? x1 : m.ax->i1[size_t(x1) - 1] + 1;
  const int row = y + item.slice.y0;
  const float* const cells = data<float>(p) + ((item.image * p.h + row) * p.w + item.slice.x0) * p.pitch;
  memory.resize(size_t(item.slice.width() + kWord));
  for (int x = begin; x < end; ++x) {
    const int column = x + item.slice.x0;
    const bool inside = row >= item.crop.y0 && row < item.crop.y1 && column >= item.crop.x0 && column < item.crop.x1;
    memory[size_t(x)] = inside ? detect_math::mask_logit(m.k, cells + x * p.pitch, int(p.c)) : 0;
  }
  return memory.data();
}

// Bits of word w of rows [y0, y1) of the target from the logits of two rows of cells. Returns those that are in doubt.
uint32_t enlarge_word(const Mask& m, int64_t w, uint32_t bits, int y0, int y1, const float* upper, const float* lower, float doubt) {
  V above[kVectors], below[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const size_t x = size_t(m.item->where.x0 + int(w) * kWord + v * int(kLanes));
    above[v] = horizontal(*m.ax, x, upper);
    below[v] = horizontal(*m.ax, x, lower);
  }
  V nearest[kVectors];  // of each column, the least distance from 0
  for (V& v : nearest) v = splat(std::numeric_limits<float>::infinity());
  for (int y = y0; y < y1; ++y) {
    const V w0 = splat(m.ay->w0[size_t(y)]), w1 = splat(m.ay->w1[size_t(y)]);
    uint32_t word = 0;
    for (int v = 0; v < kVectors; ++v) {
      const V value = hn::Add(hn::Mul(w0, above[v]), hn::Mul(w1, below[v]));
      word |= bits_of(hn::Gt(value, hn::Zero(F32()))) << (v * int(kLanes));
      nearest[v] = hn::Min(hn::Abs(value), nearest[v]);
    }
    uint32_t& to = m.row(y)[w];
    to = (to & m.used(w) & ~bits) | (word & bits);
  }
  uint32_t doubtful = 0;
  for (int v = 0; v < kVectors; ++v) doubtful |= bits_of(hn::Le(nearest[v], splat(doubt))) << (v * int(kLanes));
  return doubtful & bits;
}

// Rows [y0, y1) of the target get pixels that are all alike.
void fill(const Mask& m, int y0, int y1, bool above) {
  const int64_t row_words = m.row_words();
  uint32_t* const to = m.row(y0);
  std::memset(to, above ? 0xFF : 0, size_t((y1 - y0) * row_words) * sizeof(uint32_t));
  for (int y = 1; above && y <= y1 - y0; ++y) to[y * row_words - 1] = m.used(row_words - 1);
}

// Rows [y0, y1) of the target, which lie between the same two rows of cells.
void enlarge(const Mask& m, const ImageCells& g, int y0, int y1, const Row& upper, const Row& lower) {
  if (upper.all == lower.all && upper.all != kSome) return fill(m, y0, y1, upper.all == kAll);
  const int64_t row_words = m.row_words();
  uint32_t* to = m.row(y0);
  const auto pixels_of = [](const Row& row, int64_t w) { return row.all == kSome ? row.words[size_t(w)] : row.all; };
  for (int64_t w = 0; w < row_words; ++w, ++to) {
    const Pixels pixels = pixels_of(upper, w) == pixels_of(lower, w) ? pixels_of(upper, w) : kSome;
    const uint32_t used = m.used(w);
    if (pixels != kSome) {
      const uint32_t word = pixels == kAll ? used : 0;
      for (int y = 0; y < y1 - y0; ++y) to[y * row_words] = word;
      continue;
    }
    const float doubt = std::max(upper.doubt, lower.doubt);
    const uint32_t doubtful = enlarge_word(m, w, used, y0, y1, upper.logits(), lower.logits(), doubt);
    if (doubtful == 0 || doubt == 0) continue;
    thread_local std::vector<float> memory[2];
    const float* const defined_upper = defined_logits(m, g, m.ay->i0[size_t(y0)], w, doubtful, memory[0]);
    enlarge_word(m, w, doubtful, y0, y1, defined_upper, defined_logits(m, g, m.ay->i1[size_t(y0)], w, doubtful, memory[1]), 0);
  }
}

// Bits of word w of a target that has the size of the slice, from a row of cells. Returns those that are in doubt.
uint32_t take_word(const Mask& m, int64_t w, uint32_t bits, int y, const float* logits, float doubt) {
  uint32_t word = 0, doubtful = 0;
  for (int v = 0; v < kVectors; ++v) {
    const V value = load(logits + m.item->where.x0 + w * kWord + v * int(kLanes));
    word |= bits_of(hn::Gt(value, hn::Zero(F32()))) << (v * int(kLanes));
    doubtful |= bits_of(hn::Le(hn::Abs(value), splat(doubt))) << (v * int(kLanes));
  }
  uint32_t& to = m.row(y)[w];
  to = (to & m.used(w) & ~bits) | (word & bits);
  return doubtful & bits;
}

// Row y of a target that has the size of the slice.
void take_words(Mask& m, const ImageCells& g, int y, int strip, const Row& row) {
  for (int64_t w = 0; w < m.row_words(); ++w) {
    if (m.by_tiles) {
      const auto all = [&](const std::vector<uint64_t>& signs) {
        const TileRange& range = m.word_tiles[size_t(w)];
        return std::all_of(&signs[size_t(range.first)], &signs[size_t(range.last)] + 1, [&](uint64_t s) { return s >> strip & 1; });
      };
      const bool above = all(m.above);
      if (above || all(m.none)) {
        m.row(y)[w] = above ? m.used(w) : 0;
        continue;
      }
    }
    const uint32_t doubtful = take_word(m, w, m.used(w), y, row.logits(), row.doubt);
    if (doubtful == 0 || row.doubt == 0) continue;
    thread_local std::vector<float> memory;
    take_word(m, w, doubtful, y, defined_logits(m, g, y, w, doubtful, memory), 0);
  }
}

// Takes row y of the slice.
void take_row(Mask& m, const ImageCells& g, int y) {
  const int strip = (y + m.item->slice.y0 - g.first_row) / kTileRows - m.first_strip;
  Row& row = m.row_of(y);
  finish_logits(m, g, y, row);
  if (m.ax == nullptr) return take_words(m, g, y, strip, row);
  if (m.by_tiles && ((m.all_above | m.all_none) >> strip & 1) != 0) {
    row.all = (m.all_above >> strip & 1) != 0 ? kAll : kNone;
  } else {
    set_words(m, strip, row);
  }
  while (m.next < m.item->where.y1 && m.ay->i1[size_t(m.next)] == y) {
    const int upper = m.ay->i0[size_t(m.next)];
    int end = m.next + 1;
    while (end < m.item->where.y1 && m.ay->i0[size_t(end)] == upper && m.ay->i1[size_t(end)] == y) ++end;
    enlarge(m, g, m.next, end, m.row_of(upper), row);
    m.next = end;
  }
}

// Computes the logits of a strip of the image that its masks want.
void set_strip(const ImageCells& g, int strip, std::span<Mask* const> masks) {
  const int y0 = g.first_row + strip * kTileRows;
  for (int tile = 0; tile < g.tiles(); ++tile) {
    Wanted wanted[kMasksAtOnce];
    int n = 0;
    for (Mask* const m : masks) {
      const int own = tile - m->first_tile;
      if (own < 0 || own >= m->tiles || !m->wants(own, strip - m->first_strip)) continue;
      wanted[n].k = m->k;
      for (int y = 0; y < kTileRows; ++y) {
        wanted[n].to[y] = m->row_of(y0 + y - m->item->slice.y0).logits() + m->left + own * int(kLanes);
      }
      ++n;
    }
    const float* cells[kTileRows];
    for (int y = 0; y < kTileRows; ++y) {
      cells[y] = g.rows[std::min(y0 + y, g.end_row - 1) - g.first_row].tile(tile, g.prototypes.c);
    }
    set_logits(cells, wanted, n, g.prototypes.c);
  }
}

// The axes of a group: few, as a rule two.
class Axes {
 public:
  const BilinearAxis* get(int in, int out) {
    for (size_t i = 0; i < used_; ++i) {
      if (axes_[i].in == in && axes_[i].out == out) return &axes_[i].axis;
    }
    Known& k = axes_[used_++];
    k.in = in, k.out = out;
    k.axis.set(in, out, 0, out + kWord);
    return &k.axis;
  }
  void clear() { used_ = 0; }

 private:
  struct Known {
    int in, out;
    BilinearAxis axis;
  };
  Known axes_[2 * kMasksAtOnce];
  size_t used_ = 0;
};

// Those of the items that belong to a group of one image; their words begin at words + offset. Without words, they are handed to
// take(item, its words).
void masks_of_group(const ImageCells& g, const RowsView& coefficients, std::span<const MaskItem> items,
                    std::span<const int64_t> group, uint32_t* words, const TakeMask& take) {
  thread_local Mask masks[kMasksAtOnce];
  thread_local Axes axes;
  thread_local std::vector<uint32_t> memory;
  axes.clear();
  if (words == nullptr) {
    int64_t needed = 0;
    for (const int64_t i : group) needed += items[size_t(i)].words();
    if (int64_t(memory.size()) < needed) memory.resize(size_t(needed));
  }
  int64_t used = 0;
  size_t n = 0;
  int first = g.strips(), end = 0;  // strips
  for (const int64_t i : group) {
    const MaskItem& item = items[size_t(i)];
    if (item.words() == 0) continue;
    Mask& m = masks[n];
    m.k = data<float>(coefficients) + item.row * coefficients.pitch;
    m.sum = 0;
    for (int64_t c = 0; c < g.prototypes.c; ++c) m.sum += std::abs(m.k[c]);
    m.words = words != nullptr ? words + item.offset : memory.data() + std::exchange(used, used + item.words());
    const int h = int(item.slice.height()), w = int(item.slice.width());
    const bool same = h == item.height && w == item.width;
    begin(m, g, item, same ? nullptr : axes.get(w, item.width), same ? nullptr : axes.get(h, item.height));
    look_at_tiles(m, g);
    if (m.by_tiles && (m.all_above == m.all_strips() || m.all_none == m.all_strips())) {
      fill(m, item.where.y0, item.where.y1, m.all_above == m.all_strips());
      continue;
    }
    ++n, first = std::min(first, m.first_strip), end = std::max(end, m.first_strip + m.strips);
  }
  for (int strip = first; strip < end; ++strip) {
    Mask* taking[kMasksAtOnce];
    size_t count = 0;
    const int y0 = g.first_row + strip * kTileRows;
    for (size_t i = 0; i < n; ++i) {
      Mask& m = masks[i];
      const int own = y0 - m.item->slice.y0;
      if (needs_rows(m, own, own + kTileRows)) taking[count++] = &m;
    }
    if (g.has_cells()) set_strip(g, strip, std::span(taking, count));
    for (Mask* const m : std::span(taking, count)) {
      for (int y = y0 - m->item->slice.y0, row = 0; row < kTileRows; ++row, ++y) {
        if (needs_rows(*m, y, y + 1)) take_row(*m, g, y);
      }
    }
  }
  if (words != nullptr) return;
  used = 0;
  for (const int64_t i : group) take(i, memory.data() + std::exchange(used, used + items[size_t(i)].words()));
}

// Widens [first, end) by the cells that the outputs [begin, last) of `out` take from a slice of `in` cells, which begins at `at`.
void widen(int& first, int& end, int at, int in, int out, int begin, int last, bool same) {
  const int from = same ? begin : detect_math::tap_of(begin, in, out).i0;
  const int to = same ? last : detect_math::tap_of(last - 1, in, out).i1 + 1;
  first = std::min(first, at + from), end = std::max(end, at + to);
}

ImageCells cells_of(const ImageView& p, std::span<const MaskItem> items) {
  ImageCells g{p, items[0].image, int(p.w), 0, int(p.h), 0};
  for (const MaskItem& m : items) {
    if (m.words() == 0) continue;
    const int w = int(m.slice.width()), h = int(m.slice.height());
    const bool same = w == m.width && h == m.height;
    widen(g.begin, g.end, m.slice.x0, w, m.width, m.where.x0, m.where.x1, same);
    widen(g.first_row, g.end_row, m.slice.y0, h, m.height, m.where.y0, m.where.y1, same);
  }
  g.end = std::max(g.begin, g.end), g.end_row = std::max(g.first_row, g.end_row);
  return g;
}

// Turns the rows of a strip.
void set_cells(const ImageCells& g, int strip) {
  const int y0 = g.first_row + strip * kTileRows, y1 = std::min(y0 + kTileRows, g.end_row);
  float largest = 0;
  for (int y = y0; y < y1; ++y) {
    Cells& row = g.rows[y - g.first_row];
    row.set(g.prototypes, g.image, y, g.begin, g.end);
    largest = std::max(largest, row.largest());
  }
  g.bounds->set(g.prototypes, g.image, strip, y0, y1, g.begin, g.end, largest);
}

// So many images at a time as there are threads, or the turned prototypes would fill the caches.
void MaskPatches(ImageView p, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words,
                 const TakeMask& take) {
  struct Group {
    size_t image;
    std::span<const int64_t> items;
  };
  // Of each image from top to bottom: the masks of a group share rows.
  std::vector<int64_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  const auto top = [&](int64_t i) {
    const MaskItem& m = items[size_t(i)];
    return m.slice.y0 + m.where.y0 * m.slice.height() / std::max(m.height, 1);
  };
  thread_local std::vector<Cells> row_memory;
  thread_local std::vector<TileBounds> bounds_memory;
  std::vector<Cells>& rows = row_memory;  // of this thread, also where others use it
  std::vector<TileBounds>& bounds = bounds_memory;
  for (size_t done = 0; done < items.size();) {
    std::vector<ImageCells> images;
    std::vector<Group> groups;
    const size_t start = done;
    size_t cells = 0;
    int64_t strips = 0;
    while (done < items.size() && int(images.size()) < compute_threads()) {
      const auto rest = items.subspan(done);
      const auto end = std::find_if(rest.begin(), rest.end(), [&](const MaskItem& m) { return m.image != rest[0].image; });
      const auto of_image = std::span(order).subspan(done, size_t(end - rest.begin()));
      std::stable_sort(of_image.begin(), of_image.end(), [&](int64_t a, int64_t b) { return top(a) < top(b); });
      groups.push_back({images.size(), of_image});
      images.push_back(cells_of(p, rest.first(of_image.size())));
      done += of_image.size(), cells += size_t(images.back().end_row - images.back().first_row);
      strips += images.back().strips();
    }
    if (bounds.size() < images.size()) bounds.resize(images.size());
    if (rows.size() < cells) rows.resize(cells);
    for (size_t i = 0, at = 0; i < images.size(); ++i) {
      images[i].rows = rows.data() + at, images[i].bounds = &bounds[i];
      at += size_t(images[i].end_row - images[i].first_row);
      if (images[i].has_cells()) images[i].bounds->resize(images[i].tiles(), images[i].strips(), p.c);
    }
    if (p.c % 8 == 0) {
      parallel_for(strips, 2, [&](int64_t begin, int64_t end) {
        int64_t at = 0;  // of the image's first strip
        for (const ImageCells& g : images) {
          for (int64_t i = std::max(begin, at); i < std::min(end, at + g.strips()); ++i) set_cells(g, int(i - at));
          at += g.strips();
        }
      });
    }
    // Masks together fetch a row once; but few masks are work for all threads.
    int64_t largest = 1;
    for (const MaskItem& m : items.subspan(start, done - start)) largest = std::max(largest, m.words());
    const size_t together = size_t(std::clamp<int64_t>(int64_t(done - start) / (8 * compute_threads()), 1,
                                                       std::clamp<int64_t>(kWordsAtOnce / largest, 1, kMasksAtOnce)));
    std::vector<Group> cut;
    for (const Group& g : groups) {
      for (size_t i = 0; i < g.items.size(); i += together) {
        cut.push_back({g.image, g.items.subspan(i, std::min(together, g.items.size() - i))});
      }
    }
    parallel_chunks(int64_t(cut.size()), [&](int64_t i) {
      const Group& g = cut[size_t(i)];
      masks_of_group(images[g.image], coefficients, items, g.items, words, take);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(MaskPatches);

void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  HWY_DYNAMIC_DISPATCH(MaskPatches)(prototypes, coefficients, items, words, {});
}

void each_mask(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, const TakeMask& take) {
  HWY_DYNAMIC_DISPATCH(MaskPatches)(prototypes, coefficients, items, nullptr, take);
}

}  // namespace tessera::cpu
#endif
