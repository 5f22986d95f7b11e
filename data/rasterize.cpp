#include "data/rasterize.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tensor/base/check.h"

namespace tessera {

namespace {

// A reduced mask, stored as its bounding rectangle of cells.
struct Cells {
  PixelBox box;
  std::vector<uint8_t> set;
  int64_t area = 0;
};

Cells reduce_general(const uint8_t* plane, int height, int width, int mh, int mw) {
  Cells cells{{0, 0, mw, mh}, std::vector<uint8_t>(size_t(mh) * size_t(mw)), 0};
  resize_bilinear(plane, height, width, cells.set.data(), mh, mw, 1);
  cells.area = std::accumulate(cells.set.begin(), cells.set.end(), int64_t(0));
  return cells;
}

// `plane` (height x width) is all zero before and after.
Cells rasterize(const Polygon& polygon, std::vector<uint8_t>& plane, int height, int width, int ratio) {
  const int mh = height / ratio, mw = width / ratio;
  const PixelBox box = fill_polygon(polygon, plane.data(), height, width);
  if (box.empty()) return {};
  const auto clear = [&] {
    for (int y = box.y0; y < box.y1; ++y)
      std::memset(plane.data() + size_t(y) * size_t(width) + box.x0, 0, size_t(box.x1 - box.x0));
  };
  if (ratio % 2 != 0 || height % ratio != 0 || width % ratio != 0) {
    Cells cells = reduce_general(plane.data(), height, width, mh, mw);
    clear();
    return cells;
  }
  // The bilinear reduction by an even factor looks at the central 2 x 2 of each block and sets the cell when two of them are set.
  Cells cells;
  cells.box = {box.x0 / ratio, box.y0 / ratio, std::min((box.x1 + ratio - 1) / ratio, mw),
               std::min((box.y1 + ratio - 1) / ratio, mh)};
  const int columns = cells.box.x1 - cells.box.x0;
  cells.set.resize(size_t(columns) * size_t(cells.box.y1 - cells.box.y0));
  uint8_t* out = cells.set.data();
  const int first = ratio / 2 - 1;
  for (int cy = cells.box.y0; cy < cells.box.y1; ++cy, out += columns) {
    const uint8_t* a = plane.data() + size_t(cy * ratio + first) * size_t(width) + size_t(cells.box.x0 * ratio + first);
    const uint8_t* b = a + width;
    int64_t sum = 0;
    for (int x = 0; x < columns; ++x, a += ratio, b += ratio) {
      out[x] = a[0] + a[1] + b[0] + b[1] >= 2;
      sum += out[x];
    }
    cells.area += sum;
  }
  clear();
  return cells;
}

std::vector<Cells> rasterize_all(std::span<const Instance> instances, int height, int width, int ratio) {
  TESSERA_CHECK(ratio >= 1 && height >= ratio && width >= ratio, "masks of a {}x{} input at ratio {}", height, width, ratio);
  thread_local std::vector<uint8_t> plane;
  const size_t pixels = size_t(height) * size_t(width);
  if (plane.size() != pixels) plane.assign(pixels, 0);
  std::vector<Cells> all;
  all.reserve(instances.size());
  try {
    for (const Instance& i : instances) all.push_back(rasterize(i.polygon, plane, height, width, ratio));
  } catch (...) {
    plane.clear();  // something may be left in it
    throw;
  }
  return all;
}

void paint(const Cells& cells, int32_t value, int32_t* plane, int width) {
  const uint8_t* in = cells.set.data();
  for (int y = cells.box.y0; y < cells.box.y1; ++y) {
    int32_t* row = plane + int64_t(y) * width;
    for (int x = cells.box.x0; x < cells.box.x1; ++x, ++in)
      if (*in != 0) row[x] = value;
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
