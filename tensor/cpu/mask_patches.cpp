// Pixels of masks on the host. The masks of a group go through the prototypes of their image together, row by row: a row is read
// from memory once for all of them, and of each mask no more than the logits of two rows are kept. Where four cells around pixels
// agree, so do the pixels (`Row`): words of bits between contours are filled without arithmetic.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/mask_patches.cpp"
#include <algorithm>
#include <cstring>
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

constexpr int64_t kMasksAtOnce = 16;
constexpr int kWord = kBitsOfWord, kVectors = kWord / int(kLanes);
static_assert(kWord % int(kLanes) == 0);

// Weights are not negative and one of two is at least 1/2. So where all cells are 0, negative or no number, no pixel is above 0;
// where all are within these limits, every pixel is at least a quarter of the smallest: the products do not all round to zero, and
// no infinity times 0 makes a NaN.
constexpr float kSurelyAbove = 1e-30f, kSurelyFinite = 1e30f;
enum Pixels : uint8_t { kNone, kAll, kSome };  // of a word above 0

HWY_INLINE uint32_t bits_of(M mask) {
#if HWY_TARGET <= HWY_AVX3
  return mask.raw;
#else
  return uint32_t(_mm256_movemask_ps(hn::VecFromMask(F32(), mask).raw));
#endif
}

// The lanes of four vectors of two cells each, joined as LogitSum::sum does: cells (0, 4), (1, 5), (2, 6), (3, 7) give 0 to 7.
using F8 = hn::FixedTag<float, 8>;
using V8 = hn::Vec<F8>;
HWY_INLINE V8 sums_of_eight(const V8* s) {
  const F8 f;
  const hn::RepartitionToWide<F8> pairs;
  V8 q[4];
  for (int i = 0; i < 4; ++i) {
    q[i] = hn::Add(hn::ConcatLowerLower(f, s[i + 4], s[i]), hn::ConcatUpperUpper(f, s[i + 4], s[i]));  // lane l and lane l + 4
  }
  const auto neighbours = [&](V8 a, V8 b) HWY_ATTR {  // a0 + a1, b0 + b1, a2 + a3, b2 + b3
    return hn::BitCast(pairs, hn::Add(hn::OddEven(hn::DupEven(b), a), hn::OddEven(b, hn::DupOdd(a))));
  };
  const auto low = neighbours(q[0], q[1]), high = neighbours(q[2], q[3]);
  return hn::Add(hn::BitCast(f, hn::InterleaveLower(pairs, low, high)), hn::BitCast(f, hn::InterleaveUpper(pairs, low, high)));
}

// Logits of n cells from `cell` on; up to seven values behind them are written too.
void logits_of(const float* k, const float* cell, int64_t pitch, int channels, int64_t n, float* out) {
  if (channels % 8 != 0) {
    for (int64_t i = 0; i < n; ++i) out[i] = detect_math::mask_logit(k, cell + i * pitch, channels);
    return;
  }
  const F8 f;
  for (int64_t i = 0; i < n; i += 8) {
    const float* p[8];
    for (int64_t j = 0; j < 8; ++j) p[j] = cell + std::min(i + j, n - 1) * pitch;
    V8 sum[8];
    for (V8& s : sum) s = hn::Zero(f);
    for (int c = 0; c < channels; c += 8) {
      const V8 weight = hn::LoadU(f, k + c);
      for (size_t j = 0; j < 8; ++j) sum[j] = hn::Add(sum[j], hn::Mul(weight, hn::LoadU(f, p[j] + c)));
    }
    hn::StoreU(sums_of_eight(sum), f, out + i);
  }
}

// What the kernel needs of one row of cells of a mask: the logits, by column of the slice, and how they bear on each word.
struct Row {
  std::vector<float> logits;
  std::vector<Pixels> words;
};

// One mask on its way through the rows of its slice.
struct Mask {
  const MaskItem* item;
  const float* k;
  uint32_t* words;
  const BilinearAxis *ax, *ay;  // of the whole target and a word more; null: it has the size of the slice
  int first_row, end_row;       // of the slice, that are needed
  int first_cell, end_cell;     // and columns
  int next;                     // row of the target
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
  const MaskRect& w = item.where;
  m.item = &item, m.ax = ax, m.ay = ay, m.next = w.y0;
  m.first_row = w.y0, m.end_row = w.y1, m.first_cell = w.x0, m.end_cell = w.x1;
  if (ax != nullptr) {
    m.first_row = ay->i0[size_t(w.y0)], m.end_row = ay->i1[size_t(w.y1) - 1] + 1;
    m.first_cell = ax->i0[size_t(w.x0)], m.end_cell = ax->i1[size_t(w.x1) - 1] + 1;
  }
  for (Row& r : m.rows) {
    r.logits.assign(size_t(item.slice.width() + kWord), 0.0f);
    r.words.resize(size_t(m.row_words()));
  }
}

void set_logits(const Mask& m, const ImageView& p, int y, float* logits) {
  const MaskItem& item = *m.item;
  const int left = item.slice.x0;
  const bool inside = y + item.slice.y0 >= item.crop.y0 && y + item.slice.y0 < item.crop.y1;
  const int from = inside ? std::clamp(item.crop.x0 - left, m.first_cell, m.end_cell) : m.end_cell;
  const int to = std::clamp(item.crop.x1 - left, from, m.end_cell);
  if (from < to) {
    const float* cell = data<float>(p) + ((item.image * p.h + y + item.slice.y0) * p.w + from + left) * p.pitch;
    logits_of(m.k, cell, p.pitch, int(p.c), to - from, logits + from);
  }
  std::fill(logits + m.first_cell, logits + from, 0.0f);
  std::fill(logits + to, logits + m.end_cell, 0.0f);
}

struct CellBits {
  std::vector<uint8_t> above, sure;  // by column of the slice

  // Of `count` cells, which are at most kMost.
  static constexpr int kMost = 57;
  static uint64_t part(const std::vector<uint8_t>& bits, int first, int count) {
    uint64_t v;
    std::memcpy(&v, bits.data() + first / 8, sizeof(v));
    return v >> first % 8 & ((uint64_t{1} << count) - 1);
  }
};

void set_words(const Mask& m, Row& row) {
  thread_local CellBits bits;
  const size_t bytes = size_t(m.end_cell + kWord) / 8 + 8;
  if (bits.above.size() < bytes) bits.above.resize(bytes), bits.sure.resize(bytes);
  const F32 f;
  for (int x = m.first_cell / int(kLanes) * int(kLanes); x < m.end_cell; x += int(kLanes)) {
    const V v = load(row.logits.data() + x);
    const M above = hn::Gt(v, hn::Zero(f)), sure = hn::And(hn::Ge(v, splat(kSurelyAbove)), hn::Le(v, splat(kSurelyFinite)));
    hn::StoreMaskBits(f, above, bits.above.data() + x / 8);
    hn::StoreMaskBits(f, sure, bits.sure.data() + x / 8);
  }
  const int end = m.item->where.x1;
  for (int64_t w = 0; w < m.row_words(); ++w) {
    const int x = m.item->where.x0 + int(w) * kWord;
    const int first = m.ax->i0[size_t(x)], count = m.ax->i1[size_t(std::min(x + kWord, end)) - 1] + 1 - first;
    Pixels pixels = kSome;
    if (count <= CellBits::kMost) {
      const uint64_t all = (uint64_t{1} << count) - 1;
      if (CellBits::part(bits.above, first, count) == 0) pixels = kNone;
      if (CellBits::part(bits.sure, first, count) == all) pixels = kAll;
    }
    row.words[size_t(w)] = pixels;
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

// Rows [y0, y1) of the target, which lie between the same two rows of cells.
void enlarge(const Mask& m, int y0, int y1, const Row& upper, const Row& lower) {
  for (int64_t w = 0; w < m.row_words(); ++w) {
    const Pixels pixels = upper.words[size_t(w)] == lower.words[size_t(w)] ? upper.words[size_t(w)] : kSome;
    if (pixels != kSome) {
      const uint32_t word = pixels == kAll ? m.used(w) : 0;
      for (int y = y0; y < y1; ++y) m.row(y)[w] = word;
      continue;
    }
    V above[kVectors], below[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const size_t x = size_t(m.item->where.x0 + int(w) * kWord + v * int(kLanes));
      above[v] = horizontal(*m.ax, x, upper.logits.data());
      below[v] = horizontal(*m.ax, x, lower.logits.data());
    }
    for (int y = y0; y < y1; ++y) {
      const V w0 = splat(m.ay->w0[size_t(y)]), w1 = splat(m.ay->w1[size_t(y)]);
      uint32_t word = 0;
      for (int v = 0; v < kVectors; ++v) {
        const M set = hn::Gt(hn::Add(hn::Mul(w0, above[v]), hn::Mul(w1, below[v])), hn::Zero(F32()));
        word |= bits_of(set) << (v * int(kLanes));
      }
      m.row(y)[w] = word & m.used(w);
    }
  }
}

// Takes row y of the slice.
void take_row(Mask& m, const ImageView& p, int y) {
  Row& row = m.rows[y % 2];
  if (m.ax == nullptr) {
    set_logits(m, p, y, row.logits.data());
    for (int64_t w = 0; w < m.row_words(); ++w) {
      uint32_t word = 0;
      for (int v = 0; v < kVectors; ++v) {
        const V logits = load(row.logits.data() + m.item->where.x0 + w * kWord + v * int(kLanes));
        word |= bits_of(hn::Gt(logits, hn::Zero(F32()))) << (v * int(kLanes));
      }
      m.row(y)[w] = word & m.used(w);
    }
    return;
  }
  if (y < m.ay->i0[size_t(m.next)]) return;  // of a target that is smaller: between two of its rows
  set_logits(m, p, y, row.logits.data());
  set_words(m, row);
  while (m.next < m.item->where.y1 && m.ay->i1[size_t(m.next)] == y) {
    const int upper = m.ay->i0[size_t(m.next)];
    int end = m.next + 1;
    while (end < m.item->where.y1 && m.ay->i0[size_t(end)] == upper && m.ay->i1[size_t(end)] == y) ++end;
    enlarge(m, m.next, end, m.rows[upper % 2], row);
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

// Items of one image.
void masks_of_group(const ImageView& p, const RowsView& coefficients, std::span<const MaskItem> items, uint32_t* words) {
  thread_local Mask masks[kMasksAtOnce];
  thread_local Axes axes;
  axes.clear();
  size_t n = 0;
  int64_t first = p.h, end = 0;  // rows of the prototypes
  for (const MaskItem& item : items) {
    if (item.words() == 0) continue;
    Mask& m = masks[n++];
    m.k = data<float>(coefficients) + item.row * coefficients.pitch;
    m.words = words + item.offset;
    const int64_t h = item.slice.height(), w = item.slice.width();
    const bool same = h == item.height && w == item.width;
    begin(m, item, same ? nullptr : axes.get(int(w), item.width), same ? nullptr : axes.get(int(h), item.height));
    first = std::min<int64_t>(first, item.slice.y0 + m.first_row), end = std::max<int64_t>(end, item.slice.y0 + m.end_row);
  }
  for (int64_t y = first; y < end; ++y) {
    for (size_t i = 0; i < n; ++i) {
      const int own = int(y) - masks[i].item->slice.y0;
      if (own >= masks[i].first_row && own < masks[i].end_row) take_row(masks[i], p, own);
    }
  }
}

void MaskPatches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  std::vector<std::span<const MaskItem>> groups;
  for (size_t i = 0; i < items.size(); ++i) {
    if (groups.empty() || groups.back()[0].image != items[i].image || groups.back().size() == size_t(kMasksAtOnce)) {
      groups.push_back(items.subspan(i, 0));
    }
    groups.back() = {groups.back().data(), groups.back().size() + 1};
  }
  parallel_chunks(int64_t(groups.size()),
                  [&](int64_t i) { masks_of_group(prototypes, coefficients, groups[size_t(i)], words); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(MaskPatches);

void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  HWY_DYNAMIC_DISPATCH(MaskPatches)(prototypes, coefficients, items, words);
}

}  // namespace tessera::cpu
#endif
