// Tiles of prototypes for the masks of an image: their cells by channel, what bounds of them tell of a mask's signs, and logits of a
// tile for several masks at once.
#if defined(TESSERA_CPU_MASK_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_MASK_TILES_INL_H_
#undef TESSERA_CPU_MASK_TILES_INL_H_
#else
#define TESSERA_CPU_MASK_TILES_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "tensor/cpu/vec_math-inl.h"
#include "tensor/views.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

// Weights are not negative and one of two is at least 1/2. So where all cells are 0, negative or no number, no pixel is above 0;
// where all are within these limits, every pixel is at least a quarter of the smallest: the products do not all round to zero, and
// no infinity times 0 makes a NaN.
constexpr float kSurelyAbove = 1e-30f, kSurelyFinite = 1e30f;

// Note [Doubt]: with S = sum of |coefficients| times the largest |prototype| and n channels, the definition's logit is within n / 8 + 4
// roundings of the true sum, 2^-24 S each, the fused one within n, and the weights of a pixel, which sum to 1, add 8 more. A value
// that lies further from 0 than 3 n + 32 of them has the definition's sign; kDoubt stands for what is lost below the normal floats.
float doubt_of_sum(int64_t channels) { return float(3 * channels + 32) * 0x1p-24f; }
constexpr float kDoubt = 1e-35f;

// Note [Tiles]: a tile is a vector of columns in kTileRows rows, a strip all tiles in these rows. With the middle m between the least
// and the largest value of each channel and the radius r, the larger distance from m to the two, every logit of the tile lies within
// sum |k| r of sum k m: two multiply-adds a channel instead of one for each row and column. Of the 3 n + 32 roundings 2 n + n / 8 + 10
// are used up: those of the definition, n for each of the two sums, and a few for r and to add them.
constexpr int kTileRows = 4;
constexpr int kMostStrips = 64, kMostTiles = 64;  // that a mask may have, to be looked at by tiles

HWY_INLINE uint32_t bits_of(M mask) {
#if HWY_TARGET <= HWY_AVX3
  return mask.raw;
#else
  return uint32_t(_mm256_movemask_ps(hn::VecFromMask(F32(), mask).raw));
#endif
}

// Cells of a row of prototypes: of each vector of cells a channel after the other, so that what a mask takes lies in one piece.
class Cells {
 public:
  // Takes the columns [begin, end) of row y.
  void set(const ImageView& p, int64_t image, int y, int begin, int end) {
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
  // Channels of the cells of a tile.
  const float* tile(int column, int64_t channels) const { return aligned_ + column * channels * int64_t(kLanes); }

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

  std::vector<float> channels_;
  float* aligned_ = nullptr;  // in channels_
  float largest_ = 0;
};

// Middles and radii of the tiles of an image. A vector of them belongs to one column of tiles, a lane to a strip.
class TileBounds {
 public:
  void resize(int columns, int strips, int64_t channels) {
    vectors_ = (strips + int(kLanes) - 1) / int(kLanes), channels_ = channels;
    bounds_.resize(size_t(columns * vectors_ * channels * 2) * kLanes);
    largest_.assign(size_t(vectors_) * kLanes, 0.0f);
  }
  // Takes the columns [begin, end) of the rows [y0, y1), whose largest magnitude is given.
  void set(const ImageView& p, int64_t image, int strip, int y0, int y1, int begin, int end, float largest) {
    const F32 f;
    largest_[size_t(strip)] = largest;
    for (int column = 0, x0 = begin; x0 < end; ++column, x0 += int(kLanes)) {
      const int x1 = std::min(x0 + int(kLanes), end);
      float* const to = bounds(column, strip / int(kLanes)) + strip % int(kLanes);
      for (int64_t c = 0; c < channels_; c += int64_t(kLanes)) {
        const size_t n = size_t(std::min<int64_t>(channels_ - c, kLanes));
        V least = splat(std::numeric_limits<float>::infinity()), most = hn::Neg(least);
        for (int y = y0; y < y1; ++y) {
          const float* cell = data<float>(p) + ((image * p.h + y) * p.w + x0) * p.pitch + c;
          for (int x = x0; x < x1; ++x, cell += p.pitch) {
            const V v = load(first(n), cell);
            least = hn::Min(least, v), most = hn::Max(most, v);
          }
        }
        const V half = splat(0.5f), middle = hn::Add(hn::Mul(half, least), hn::Mul(half, most));
        alignas(64) float middles[kLanes], radii[kLanes];
        hn::Store(middle, f, middles);
        hn::Store(hn::Max(hn::Sub(most, middle), hn::Sub(middle, least)), f, radii);
        for (size_t i = 0; i < n; ++i) {
          float* const of_channel = to + (c + int64_t(i)) * 2 * int64_t(kLanes);
          of_channel[0] = middles[i], of_channel[kLanes] = radii[i];
        }
      }
    }
  }

  // Of kLanes strips from kLanes * v on, a bit for each: whether a mask of coefficients k, whose magnitudes sum to `sum`, is surely
  // above 0 in every cell of the column's tile, or in none.
  struct Signs {
    uint32_t above, none;
  };
  Signs signs(int column, int v, const float* k, float sum) const {
    const float* b = bounds_.data() + offset(column, v);
    V middles[2] = {hn::Zero(F32()), hn::Zero(F32())}, radii[2] = {hn::Zero(F32()), hn::Zero(F32())};
    for (int64_t c = 0; c < channels_; c += 2) {
      for (int64_t i = 0; i < 2; ++i, b += 2 * kLanes) {
        const V of_channel = splat(k[c + i]);
        middles[i] = hn::MulAdd(of_channel, load(b), middles[i]);
        radii[i] = hn::MulAdd(hn::Abs(of_channel), load(b + kLanes), radii[i]);
      }
    }
    const V middle = hn::Add(middles[0], middles[1]), radius = hn::Add(radii[0], radii[1]);
    const V least = hn::Sub(middle, radius), most = hn::Add(middle, radius);
    const V doubt = hn::MulAdd(splat(sum * doubt_of_sum(channels_)), load(largest_.data() + v * int(kLanes)), splat(kDoubt));
    const M above = hn::And(hn::Ge(least, hn::Max(doubt, splat(kSurelyAbove))), hn::Le(most, splat(kSurelyFinite)));
    return {bits_of(above), bits_of(hn::Lt(most, hn::Neg(doubt)))};
  }

 private:
  size_t offset(int column, int v) const { return size_t((column * vectors_ + v) * channels_ * 2) * kLanes; }
  float* bounds(int column, int v) { return bounds_.data() + offset(column, v); }

  int64_t vectors_ = 0, channels_ = 0;
  std::vector<float> bounds_;   // of each vector of tiles, by channel a vector of middles and one of radii
  std::vector<float> largest_;  // magnitude in each strip; infinite where a value is no number
};

// A mask that wants logits of a tile, from a row each.
struct Wanted {
  const float* k;
  float* to[kTileRows];
};

// Fused logits of a tile for n masks. One alone has two sums a row, or one addition would wait for the other.
template <int n>
HWY_INLINE void logits_of(const float* const* cells, const Wanted* masks, int64_t channels) {
  constexpr int kSums = n == 1 ? 2 : 1;
  V sums[n][kTileRows][kSums];
  for (auto& of_mask : sums) {
    for (auto& of_row : of_mask) {
      for (V& v : of_row) v = hn::Zero(F32());
    }
  }
  for (int64_t c = 0; c < channels; c += kSums) {
    for (int64_t s = 0; s < kSums; ++s) {
      V cell[kTileRows];
      for (int y = 0; y < kTileRows; ++y) cell[y] = load(cells[y] + (c + s) * int64_t(kLanes));
      for (int m = 0; m < n; ++m) {
        const V k = splat(masks[m].k[c + s]);
        for (int y = 0; y < kTileRows; ++y) sums[m][y][s] = hn::MulAdd(k, cell[y], sums[m][y][s]);
      }
    }
  }
  for (int m = 0; m < n; ++m) {
    for (int y = 0; y < kTileRows; ++y) {
      V sum = sums[m][y][0];
      if constexpr (kSums == 2) sum = hn::Add(sum, sums[m][y][1]);
      hn::StoreU(sum, F32(), masks[m].to[y]);
    }
  }
}

// For all that want some. channels: a multiple of 8.
void set_logits(const float* const* cells, const Wanted* masks, int n, int64_t channels) {
  constexpr int kTogether = kLanes == 16 ? 4 : 2;  // as many as there are registers for
  int i = 0;
  for (; i + kTogether <= n; i += kTogether) logits_of<kTogether>(cells, masks + i, channels);
  if (kTogether > 2 && n - i >= 2) logits_of<2>(cells, masks + i, channels), i += 2;
  if (n - i >= 1) logits_of<1>(cells, masks + i, channels);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
