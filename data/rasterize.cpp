#include "data/rasterize.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "tensor/base/check.h"

namespace tessera {

namespace {

// A reduced mask in rows of bits, of which only each spread-th is used (a power of two): bit b of word w is the cell of column
// (64 (first_word + w) + b) / spread.
struct Cells {
  int first_row = 0, end_row = 0, first_word = 0, words = 0, spread = 1;
  std::vector<uint64_t> set;
  int64_t area = 0;
};

constexpr int kBits = PolygonBits::kBits;

// Each spread-th bit.
uint64_t every(int spread) {
  uint64_t bits = 0;
  for (int x = 0; x < kBits; x += spread) bits |= uint64_t(1) << x;
  return bits;
}

Cells reduce_general(const Polygon& polygon, int height, int width, int mh, int mw) {
  std::vector<uint8_t> plane(size_t(height) * size_t(width), 0), cells(size_t(mh) * size_t(mw));
  if (fill_polygon(polygon, plane.data(), height, width).empty()) return {};
  resize_bilinear(plane.data(), height, width, cells.data(), mh, mw, 1);
  Cells out{0, mh, 0, (mw + kBits - 1) / kBits, 1, {}, 0};
  out.set.assign(size_t(mh) * size_t(out.words), 0);
  for (int y = 0; y < mh; ++y)
    for (int x = 0; x < mw; ++x)
      out.set[size_t(y) * size_t(out.words) + size_t(x / kBits)] |= uint64_t(cells[size_t(y) * size_t(mw) + size_t(x)])
                                                                    << x % kBits;
  out.area = std::accumulate(cells.begin(), cells.end(), int64_t(0));
  return out;
}

Cells rasterize(const Polygon& polygon, PolygonBits& bits, int height, int width, int ratio) {
  if (ratio % 2 != 0 || kBits % ratio != 0 || height % ratio != 0 || width % ratio != 0)
    return reduce_general(polygon, height, width, height / ratio, width / ratio);
  const PixelBox box = bits.draw(polygon, height, width);
  if (box.empty()) return {};
  // The bilinear reduction by an even factor looks at the central 2 x 2 of each block and sets the cell when two of them are set.
  Cells cells{box.y0 / ratio, (box.y1 + ratio - 1) / ratio, bits.first_word(), bits.end_word() - bits.first_word(), ratio, {}, 0};
  const size_t words = size_t(cells.words);
  cells.set.resize(size_t(cells.end_row - cells.first_row) * words);
  std::vector<uint64_t> rows(2 * words);
  const int first = ratio / 2 - 1;
  const uint64_t all = every(ratio);
  uint64_t* out = cells.set.data();
  for (int cy = cells.first_row; cy < cells.end_row; ++cy) {
    for (const int k : {0, 1}) {
      const int y = cy * ratio + first + k;
      if (y >= box.y0 && y < box.y1)
        bits.row(y, rows.data() + size_t(k) * words);
      else
        std::fill_n(rows.begin() + int64_t(size_t(k) * words), words, uint64_t(0));
    }
    for (size_t w = 0; w < words; ++w) {
      const uint64_t a = rows[w] >> first, b = a >> 1, c = rows[words + w] >> first, d = c >> 1;
      *out = ((a & b) | (c & d) | ((a | b) & (c | d))) & all;
      cells.area += std::popcount(*out++);
    }
  }
  return cells;
}

std::vector<Cells> rasterize_all(std::span<const Instance> instances, int height, int width, int ratio) {
  TESSERA_CHECK(ratio >= 1 && height >= ratio && width >= ratio, "masks of a {}x{} input at ratio {}", height, width, ratio);
  thread_local PolygonBits bits;
  std::vector<Cells> all;
  all.reserve(instances.size());
  for (const Instance& i : instances) all.push_back(rasterize(i.polygon, bits, height, width, ratio));
  return all;
}

void paint(const Cells& cells, int32_t value, int32_t* plane, int width) {
  const uint64_t* in = cells.set.data();
  const uint64_t all = every(cells.spread);
  const int shift = std::countr_zero(unsigned(cells.spread));
  for (int y = cells.first_row; y < cells.end_row; ++y)
    for (int w = cells.first_word; w < cells.first_word + cells.words; ++w, ++in) {
      int32_t* const to = plane + int64_t(y) * width + (w * kBits >> shift);
      if (*in == all)
        std::fill_n(to, kBits >> shift, value);
      else
        for (uint64_t left = *in; left != 0; left &= left - 1) to[std::countr_zero(left) >> shift] = value;
    }
}

}  // namespace

MaskTargets overlap_masks(std::span<const Instance> instances, int height, int width, int ratio) {
  const std::vector<Cells> all = rasterize_all(instances, height, width, ratio);
  MaskTargets out{height / ratio, width / ratio, std::vector<int64_t>(instances.size()), {}};
  std::iota(out.order.begin(), out.order.end(), int64_t(0));
  // Subtracting one from an unsigned area puts zero at the top.
  const auto key = [&](int64_t i) { return uint64_t(all[size_t(i)].area) - 1; };
  std::stable_sort(out.order.begin(), out.order.end(), [&](int64_t a, int64_t b) { return key(a) > key(b); });
  out.values.assign(size_t(out.height) * size_t(out.width), 0);
  for (size_t j = 0; j < out.order.size(); ++j) paint(all[size_t(out.order[j])], int32_t(j + 1), out.values.data(), out.width);
  return out;
}

MaskTargets separate_masks(std::span<const Instance> instances, int height, int width, int ratio) {
  const std::vector<Cells> all = rasterize_all(instances, height, width, ratio);
  MaskTargets out{height / ratio, width / ratio, std::vector<int64_t>(instances.size()), {}};
  std::iota(out.order.begin(), out.order.end(), int64_t(0));
  const size_t cells = size_t(out.height) * size_t(out.width);
  out.values.assign(cells * instances.size(), 0);
  for (size_t j = 0; j < all.size(); ++j) paint(all[j], 1, out.values.data() + j * cells, out.width);
  return out;
}

}  // namespace tessera
