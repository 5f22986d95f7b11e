// Pixels of masks on the host. Rows of prototypes are turned by channel, once for all masks of an image. The masks of a group go
// through them together: a vector of cells is loaded once for eight masks, and of each mask no more than the logits of two rows are
// kept. Where four cells around pixels agree, so do the pixels (`Row`): words of bits between contours are filled without
// arithmetic.
//
// Only signs are asked for. So logits are summed with fused multiply-adds, half the instructions of the definition, and a pixel
// that rounding may have decided is computed again as defined (Note [Doubt]).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/mask_patches.cpp"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/bilinear.h"
#include "tensor/cpu/highway.h"
#include "tensor/ops/detect_math.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kMasksAtOnce = 48, kWordsAtOnce = int64_t{1} << 20;  // of a group
constexpr int kWord = kBitsOfWord, kVectors = kWord / int(kLanes);
static_assert(kWord % int(kLanes) == 0);

// Weights are not negative and one of two is at least 1/2. So where all cells are 0, negative or no number, no pixel is above 0;
// where all are within these limits, every pixel is at least a quarter of the smallest: the products do not all round to zero, and
// no infinity times 0 makes a NaN.
constexpr float kSurelyAbove = 1e-30f, kSurelyFinite = 1e30f;
enum Pixels : uint8_t { kNone, kAll, kSome };  // of a word above 0

// Note [Doubt]: with S = sum of |coefficients| times the largest |prototype|, the definition's logit and the fused one are each within
// 40 roundings of the true sum, less than 2^-18 S together, and the weights of a pixel, which sum to 1, add 8 roundings more. A value
// that lies further from 0 than this has the definition's sign; the last term stands for what is lost below the normal floats.
constexpr float kDoubtOfSum = 0x1p-16f, kDoubt = 1e-35f;

HWY_INLINE uint32_t bits_of(M mask) {
#if HWY_TARGET <= HWY_AVX3
  return mask.raw;
#else
  return uint32_t(_mm256_movemask_ps(hn::VecFromMask(F32(), mask).raw));
#endif
}

// Masks that want logits from a row of prototypes.
struct Wanted {
  int n = 0;
  alignas(64) int32_t begin[kMasksAtOnce], end[kMasksAtOnce];  // columns of the prototypes
  const float* k[kMasksAtOnce];                                // coefficients
  float* logits[kMasksAtOnce];                                 // of column 0

  void add(int from, int to, const float* coefficients, float* out) {
    begin[n] = from, end[n] = to, k[n] = coefficients, logits[n] = out;
    ++n;
  }
};

// Cells of a row of prototypes: of each vector of cells a channel after the other, so that what a mask takes lies in one piece.
class Cells {
 public:
  // Takes the columns [begin, end) of row y.
  void set(const ImageView& p, int64_t image, int y, int begin, int end) {
    begin_ = begin, end_ = end;
    Seen seen{hn::Zero(F32()), hn::Zero(F32())};
    const int64_t vectors = (end - begin + int(kLanes) - 1) / int(kLanes);
    channels_.resize(size_t(vectors * p.c + 1) * kLanes);
    aligned_ = reinterpret_cast<float*>(hwy::RoundUpTo(reinterpret_cast<uintptr_t>(channels_.data()), kLanes * sizeof(float)));
    const float* const cells = data<float>(p) + ((image * p.h + y) * p.w + begin) * p.pitch;
    for (int x = 0; x < end - begin; x += int(kLanes)) {
      const float* cell[kLanes];
      for (int i = 0; i < int(kLanes); ++i) cell[i] = cells + std::min(x + i, end - begin - 1) * p.pitch;
      for (int64_t c = 0; c < p.c; c += 4) four_channels(cell, c, aligned_ + x * p.c + c * int64_t(kLanes), seen);
    }
    const bool finite = hn::AllTrue(F32(), hn::Eq(seen.zeros, hn::Zero(F32())));
    largest_ = finite ? hn::GetLane(hn::MaxOfLanes(F32(), seen.largest)) : std::numeric_limits<float>::infinity();
  }
  // Of the magnitudes of the row; infinite when one of them is no number.
  float largest() const { return largest_; }
  // Fused logits for all that want some; up to kLanes - 1 values before and behind theirs are written too. channels: a multiple
  // of 8.
  void set_logits(Wanted& wanted, int channels) const {
    const hn::RebindToSigned<F32> d;
    alignas(64) int32_t here[kMasksAtOnce + int(kLanes)];  // those of a vector of cells
    for (int x = begin_; x < end_; x += int(kLanes)) {
      int n = 0;
      for (int m = 0; m < wanted.n; m += int(kLanes)) {
        const auto begins = hn::Lt(hn::LoadU(d, wanted.begin + m), hn::Set(d, x + int(kLanes)));
        const auto ends = hn::Gt(hn::LoadU(d, wanted.end + m), hn::Set(d, x));
        const auto is_there = hn::FirstN(d, size_t(wanted.n - m));
        const auto both = hn::And(is_there, hn::And(begins, ends));
        hn::StoreU(hn::Compress(hn::Iota(d, m), both), d, here + n);  // to compress into memory takes long on some CPUs
        n += int(hn::CountTrue(d, both));
      }
      int i = 0;
      for (; i + 8 <= n; i += 8) logits_of<8>(wanted, here + i, channels, x);
      if (n - i >= 4) logits_of<4>(wanted, here + i, channels, x), i += 4;
      if (n - i >= 2) logits_of<2>(wanted, here + i, channels, x), i += 2;
      if (n - i >= 1) logits_of<1>(wanted, here + i, channels, x);
    }
  }

 private:
  struct Seen {
    V largest;
    V zeros;  // sums of 0 times the values: no numbers once one of them was infinite or none
  };

  // Channels c to c + 3 of every fourth cell.
  template <int n>
  static HWY_INLINE auto four_of_each(const float* const* cell, int64_t c) {
    const hn::FixedTag<float, n> d;
    if constexpr (n == 4) {
      return hn::LoadU(d, cell[0] + c);
    } else {
      return hn::Combine(d, four_of_each<n / 2>(cell + n / 2, c), four_of_each<n / 2>(cell, c));
    }
  }
  // Channels c to c + 3 of kLanes cells, as squares of four.
  void four_channels(const float* const* cell, int64_t c, float* to, Seen& seen) const {
    const F32 f;
    const hn::RepartitionToWide<F32> pairs;
    V rows[4];  // cells i, i + 4, ... in row i
    for (int i = 0; i < 4; ++i) {
      rows[i] = four_of_each<int(kLanes)>(cell + i, c);
      seen.largest = hn::Max(seen.largest, hn::Abs(rows[i]));
      seen.zeros = hn::MulAdd(rows[i], hn::Zero(f), seen.zeros);
    }
    const auto pair = [&](V v) HWY_ATTR { return hn::BitCast(pairs, v); };
    const auto low01 = pair(hn::InterleaveLower(f, rows[0], rows[1])), high01 = pair(hn::InterleaveUpper(f, rows[0], rows[1]));
    const auto low23 = pair(hn::InterleaveLower(f, rows[2], rows[3])), high23 = pair(hn::InterleaveUpper(f, rows[2], rows[3]));
    hn::StoreU(hn::BitCast(f, hn::InterleaveLower(pairs, low01, low23)), f, to);
    hn::StoreU(hn::BitCast(f, hn::InterleaveUpper(pairs, low01, low23)), f, to + kLanes);
    hn::StoreU(hn::BitCast(f, hn::InterleaveLower(pairs, high01, high23)), f, to + 2 * kLanes);
    hn::StoreU(hn::BitCast(f, hn::InterleaveUpper(pairs, high01, high23)), f, to + 3 * kLanes);
  }

  // Of a vector of cells, for n masks. Few masks have several sums each, or one addition would wait for the other.
  template <int n>
  void logits_of(const Wanted& wanted, const int32_t* which, int channels, int x) const {
    constexpr int kSums = 8 / n;
    const float* k[n];
    V sums[n][kSums];
    for (int m = 0; m < n; ++m) {
      k[m] = wanted.k[which[m]];
      for (V& v : sums[m]) v = hn::Zero(F32());
    }
    const float* cells = aligned_ + int64_t{x - begin_} * channels;
    for (int c = 0; c < channels; c += kSums) {
      for (int s = 0; s < kSums; ++s, cells += kLanes) {
        const V cell = load(cells);
        for (int m = 0; m < n; ++m) sums[m][s] = hn::MulAdd(splat(k[m][c + s]), cell, sums[m][s]);
      }
    }
    for (int m = 0; m < n; ++m) {
      for (int s = 1; s < kSums; ++s) sums[m][0] = hn::Add(sums[m][0], sums[m][s]);
      hn::StoreU(sums[m][0], F32(), wanted.logits[which[m]] + x);
    }
  }

  int begin_ = 0, end_ = 0;
  std::vector<float> channels_;
  float* aligned_ = nullptr;  // in channels_
  float largest_ = 0;
};

// A bit for each column of the slice, and those of them that a word of the target takes.
struct CellBits {
  std::vector<uint8_t> above, sure;
};
struct CellSpan {
  int byte, shift;
  uint64_t all;  // 0: too many for one load

  static constexpr int kMost = 57;
  CellSpan(int first, int count) : byte(first / 8), shift(first % 8), all(count <= kMost ? (uint64_t{1} << count) - 1 : 0) {}
  uint64_t of(const std::vector<uint8_t>& bits) const {
    uint64_t v;
    std::memcpy(&v, bits.data() + byte, sizeof(v));
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
  Row rows[2];                  // row y is in [y % 2]

  int64_t row_words() const { return words_of_row(item->where.width()); }
  uint32_t* row(int y) const { return words + (y - item->where.y0) * row_words(); }
  // Of the bits of word w, those that are columns.
  uint32_t used(int64_t w) const {
    const int64_t columns = item->where.width() - w * kWord;
    return columns >= kWord ? ~0u : (1u << columns) - 1;
  }
};

// An item that is not empty.
void begin(Mask& m, const MaskItem& item, const BilinearAxis* ax, const BilinearAxis* ay) {
  const PixelBox& w = item.where;
  m.item = &item, m.ax = ax, m.ay = ay, m.next = w.y0;
  m.first_row = w.y0, m.end_row = w.y1, m.first_cell = w.x0, m.end_cell = w.x1;
  m.spans.clear();
  if (ax != nullptr) {
    for (int x = w.x0; x < w.x1; x += kWord) {
      const int first = ax->i0[size_t(x)];
      m.spans.emplace_back(first, ax->i1[size_t(std::min(x + kWord, w.x1)) - 1] + 1 - first);
    }
    m.first_row = ay->i0[size_t(w.y0)], m.end_row = ay->i1[size_t(w.y1) - 1] + 1;
    m.first_cell = ax->i0[size_t(w.x0)], m.end_cell = ax->i1[size_t(w.x1) - 1] + 1;
  }
  for (Row& r : m.rows) {
    r.memory.assign(size_t(item.slice.width() + 2 * kWord), 0.0f);
    r.words.resize(size_t(m.row_words()));
  }
}

// What the masks of an image have in common.
struct ImageCells {
  const ImageView& prototypes;
  int64_t image;
  int begin = 0, end = 0, first_row = 0, end_row = 0;  // columns and rows of the prototypes that its masks need
  Cells* rows = nullptr;                               // from first_row on
};

// Whether row y of the slice is needed: of a target that is smaller, some lie between two of its rows.
bool needs_row(const Mask& m, int y) {
  return y >= m.first_row && y < m.end_row && (m.ax == nullptr || y >= m.ay->i0[size_t(m.next)]);
}

// Finds out which logits of row y of the slice lie inside of the crop. They are wanted fused, or taken here as defined.
void want_logits(const Mask& m, const ImageCells& g, int y, Row& r, Wanted& wanted) {
  const MaskItem& item = *m.item;
  const ImageView& p = g.prototypes;
  const int left = item.slice.x0, row = y + item.slice.y0;
  const bool inside = row >= item.crop.y0 && row < item.crop.y1;
  r.from = inside ? std::clamp(item.crop.x0 - left, m.first_cell, m.end_cell) : m.end_cell;
  r.to = std::clamp(item.crop.x1 - left, r.from, m.end_cell);
  r.doubt = 0;
  if (r.from == r.to) return;
  const float sum = p.c % 8 == 0 ? m.sum * g.rows[row - g.first_row].largest() : std::numeric_limits<float>::infinity();
  if (std::isfinite(sum)) {
    r.doubt = sum > 0 ? kDoubtOfSum * sum + kDoubt : 0;
    wanted.add(r.from + left, r.to + left, m.k, r.logits() - left);
  } else {
    const float* const cells = data<float>(p) + ((item.image * p.h + row) * p.w + left) * p.pitch;
    for (int x = r.from; x < r.to; ++x) r.logits()[x] = detect_math::mask_logit(m.k, cells + x * p.pitch, int(p.c));
  }
}

void set_words(const Mask& m, Row& row) {
  thread_local CellBits bits;
  const size_t bytes = size_t(m.end_cell + kWord) / 8 + 8;
  if (bits.above.size() < bytes) bits.above.resize(bytes), bits.sure.resize(bytes);
  uint8_t *const above_bits = bits.above.data(), *const sure_bits = bits.sure.data();
  const F32 f;
  const V least = splat(-row.doubt), surely = splat(std::max(row.doubt, kSurelyAbove)), finite = splat(kSurelyFinite);
  uint32_t any = 0, unsure = 0;
  for (int x = m.first_cell / int(kLanes) * int(kLanes); x < m.end_cell; x += int(kLanes)) {
    const V v = load(row.logits() + x);
    const auto before = [&](int end) HWY_ATTR { return first(size_t(std::clamp(end - x, 0, int(kLanes)))); };
    const M inside = hn::AndNot(before(row.from), before(row.to)), needed = hn::AndNot(before(m.first_cell), before(m.end_cell));
    const M above = hn::AndNot(hn::Lt(v, least), inside);  // may be
    const M sure = hn::And(hn::Ge(v, surely), hn::Le(v, finite));
    hn::StoreMaskBits(f, above, above_bits + x / 8);
    hn::StoreMaskBits(f, sure, sure_bits + x / 8);
    any |= bits_of(above);
    unsure |= bits_of(hn::AndNot(sure, needed));
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

// Logits as defined of the cells that word w takes from row y, by column of the slice.
const float* defined_logits(const Mask& m, const ImageCells& g, int y, int64_t w, std::vector<float>& memory) {
  const MaskItem& item = *m.item;
  const ImageView& p = g.prototypes;
  const int x0 = item.where.x0 + int(w) * kWord, x1 = std::min(x0 + kWord, item.where.x1);
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

// Word w of rows [y0, y1) of the target from the logits of two rows of cells. Returns the bits that are in doubt.
uint32_t enlarge_word(const Mask& m, int64_t w, int y0, int y1, const float* upper, const float* lower, float doubt) {
  V above[kVectors], below[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const size_t x = size_t(m.item->where.x0 + int(w) * kWord + v * int(kLanes));
    above[v] = horizontal(*m.ax, x, upper);
    below[v] = horizontal(*m.ax, x, lower);
  }
  const uint32_t used = m.used(w);
  uint32_t doubtful = 0;
  for (int y = y0; y < y1; ++y) {
    const V w0 = splat(m.ay->w0[size_t(y)]), w1 = splat(m.ay->w1[size_t(y)]);
    uint32_t word = 0;
    for (int v = 0; v < kVectors; ++v) {
      const V value = hn::Add(hn::Mul(w0, above[v]), hn::Mul(w1, below[v]));
      word |= bits_of(hn::Gt(value, hn::Zero(F32()))) << (v * int(kLanes));
      doubtful |= bits_of(hn::Le(hn::Abs(value), splat(doubt))) << (v * int(kLanes));
    }
    m.row(y)[w] = word & used;
  }
  return doubtful & used;
}

// Rows [y0, y1) of the target, which lie between the same two rows of cells.
void enlarge(const Mask& m, const ImageCells& g, int y0, int y1, const Row& upper, const Row& lower) {
  const int64_t row_words = m.row_words();
  uint32_t* to = m.row(y0);
  if (upper.all == lower.all && upper.all != kSome) {
    std::memset(to, upper.all == kAll ? 0xFF : 0, size_t((y1 - y0) * row_words) * sizeof(uint32_t));
    for (int y = 1; upper.all == kAll && y <= y1 - y0; ++y) to[y * row_words - 1] = m.used(row_words - 1);
    return;
  }
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
    if (enlarge_word(m, w, y0, y1, upper.logits(), lower.logits(), doubt) == 0 || doubt == 0) continue;
    thread_local std::vector<float> memory[2];
    const float* const defined_upper = defined_logits(m, g, m.ay->i0[size_t(y0)], w, memory[0]);
    enlarge_word(m, w, y0, y1, defined_upper, defined_logits(m, g, m.ay->i1[size_t(y0)], w, memory[1]), 0);
  }
}

// Word w of a target that has the size of the slice, from a row of cells. Returns the bits that are in doubt.
uint32_t take_word(const Mask& m, int64_t w, int y, const float* logits, float doubt) {
  uint32_t word = 0, doubtful = 0;
  for (int v = 0; v < kVectors; ++v) {
    const V value = load(logits + m.item->where.x0 + w * kWord + v * int(kLanes));
    word |= bits_of(hn::Gt(value, hn::Zero(F32()))) << (v * int(kLanes));
    doubtful |= bits_of(hn::Le(hn::Abs(value), splat(doubt))) << (v * int(kLanes));
  }
  m.row(y)[w] = word & m.used(w);
  return doubtful & m.used(w);
}

// Takes row y of the slice, whose logits inside of the crop are there.
void take_row(Mask& m, const ImageCells& g, int y) {
  Row& row = m.rows[y % 2];
  std::fill(row.logits() + m.first_cell, row.logits() + row.from, 0.0f);
  std::fill(row.logits() + row.to, row.logits() + m.end_cell, 0.0f);
  if (m.ax == nullptr) {
    for (int64_t w = 0; w < m.row_words(); ++w) {
      if (take_word(m, w, y, row.logits(), row.doubt) == 0 || row.doubt == 0) continue;
      thread_local std::vector<float> memory;
      take_word(m, w, y, defined_logits(m, g, y, w, memory), 0);
    }
    return;
  }
  set_words(m, row);
  while (m.next < m.item->where.y1 && m.ay->i1[size_t(m.next)] == y) {
    const int upper = m.ay->i0[size_t(m.next)];
    int end = m.next + 1;
    while (end < m.item->where.y1 && m.ay->i0[size_t(end)] == upper && m.ay->i1[size_t(end)] == y) ++end;
    enlarge(m, g, m.next, end, m.rows[upper % 2], row);
    m.next = end;
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

// Items of one image, whose words begin at words + offset; without words, they are handed to take(index among the items, its words).
void masks_of_group(const ImageCells& g, const RowsView& coefficients, std::span<const MaskItem> items, uint32_t* words,
                    const std::function<void(size_t i, const uint32_t* words)>& take) {
  thread_local Mask masks[kMasksAtOnce];
  thread_local Axes axes;
  thread_local std::vector<uint32_t> memory;
  axes.clear();
  if (words == nullptr) {
    int64_t needed = 0;
    for (const MaskItem& item : items) needed += item.words();
    if (int64_t(memory.size()) < needed) memory.resize(size_t(needed));
  }
  int64_t used = 0;
  size_t n = 0;
  int first = g.end_row, end = 0;  // rows of the prototypes
  for (const MaskItem& item : items) {
    if (item.words() == 0) continue;
    Mask& m = masks[n++];
    m.k = data<float>(coefficients) + item.row * coefficients.pitch;
    m.sum = 0;
    for (int64_t c = 0; c < g.prototypes.c; ++c) m.sum += std::abs(m.k[c]);
    m.words = words != nullptr ? words + item.offset : memory.data() + std::exchange(used, used + item.words());
    const int h = int(item.slice.height()), w = int(item.slice.width());
    const bool same = h == item.height && w == item.width;
    begin(m, item, same ? nullptr : axes.get(w, item.width), same ? nullptr : axes.get(h, item.height));
    first = std::min(first, item.slice.y0 + m.first_row), end = std::max(end, item.slice.y0 + m.end_row);
  }
  for (int y = first; y < end; ++y) {
    Wanted wanted;
    Mask* taking[kMasksAtOnce];
    size_t count = 0;
    for (size_t i = 0; i < n; ++i) {
      Mask& m = masks[i];
      const int own = y - m.item->slice.y0;
      if (!needs_row(m, own)) continue;
      taking[count++] = &m;
      want_logits(m, g, own, m.rows[own % 2], wanted);
    }
    if (wanted.n > 0) g.rows[y - g.first_row].set_logits(wanted, int(g.prototypes.c));
    for (size_t i = 0; i < count; ++i) take_row(*taking[i], g, y - taking[i]->item->slice.y0);
  }
  if (words != nullptr) return;
  used = 0;
  for (size_t i = 0; i < items.size(); ++i) take(i, memory.data() + std::exchange(used, used + items[i].words()));
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

// So many images at a time as there are threads, or the turned prototypes would fill the caches.
void MaskPatches(ImageView p, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words,
                 const std::function<void(int64_t item, const uint32_t* words)>& take) {
  struct Group {
    size_t image;
    std::span<const MaskItem> items;
  };
  const MaskItem* const all = items.data();
  thread_local std::vector<Cells> memory;
  std::vector<Cells>& rows = memory;  // of this thread, also where others use it
  while (!items.empty()) {
    std::vector<ImageCells> images;
    std::vector<Group> groups;
    size_t taken = 0, cells = 0;
    while (taken < items.size() && int(images.size()) < compute_threads()) {
      const int32_t image = items[taken].image;
      const auto of_image = items.subspan(taken);
      const auto end = std::find_if(of_image.begin(), of_image.end(), [&](const MaskItem& m) { return m.image != image; });
      groups.push_back({images.size(), of_image.first(size_t(end - of_image.begin()))});
      images.push_back(cells_of(p, groups.back().items));
      taken += groups.back().items.size(), cells += size_t(images.back().end_row - images.back().first_row);
    }
    if (rows.size() < cells) rows.resize(cells);
    for (size_t i = 0, at = 0; i < images.size(); ++i) {
      images[i].rows = rows.data() + at;
      at += size_t(images[i].end_row - images[i].first_row);
    }
    if (p.c % 8 == 0) {
      parallel_for(int64_t(cells), 8, [&](int64_t begin, int64_t end) {
        for (const ImageCells& g : images) {
          const int64_t at = g.rows - rows.data(), last = std::min<int64_t>(end, at + g.end_row - g.first_row);
          for (int64_t i = std::max(begin, at); i < last; ++i) rows[size_t(i)].set(p, g.image, g.first_row + int(i - at), g.begin, g.end);
        }
      });
    }
    // Masks together fetch a row once; but few masks are work for all threads.
    int64_t largest = 1;
    for (const MaskItem& m : items.first(taken)) largest = std::max(largest, m.words());
    const size_t together = size_t(std::clamp<int64_t>(int64_t(taken) / (4 * compute_threads()), 1,
                                                       std::clamp<int64_t>(kWordsAtOnce / largest, 1, kMasksAtOnce)));
    std::vector<Group> cut;
    for (const Group& g : groups) {
      for (size_t i = 0; i < g.items.size(); i += together) {
        cut.push_back({g.image, g.items.subspan(i, std::min(together, g.items.size() - i))});
      }
    }
    parallel_chunks(int64_t(cut.size()), [&](int64_t i) {
      const Group& g = cut[size_t(i)];
      const int64_t before = g.items.data() - all;
      masks_of_group(images[g.image], coefficients, g.items, words,
                     [&](size_t item, const uint32_t* its_words) { take(before + int64_t(item), its_words); });
    });
    items = items.subspan(taken);
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
