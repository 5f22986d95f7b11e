#include "data/transforms/collage.h"

#include <algorithm>
#include <cstring>

#include "data/transforms/letterbox.h"

namespace tessera {

namespace {

// The columns of the canvas that `part` covers in row y.
Columns covered(const Collage& c, const Collage::Part& part, int y) {
  if (y < std::max(part.y, 0) || y >= std::min(part.y + part.image->height, c.height)) return {};
  return {std::max(part.x, 0), std::min(part.x + part.image->width, c.width)};
}

}  // namespace

Columns Collage::filled(int y) const {
  Columns all;
  for (int k = 0; k < count; ++k) {
    const Columns c = covered(*this, parts[size_t(k)], y);
    if (c.empty()) continue;
    all = all.empty() ? c : Columns{std::min(all.begin, c.begin), std::max(all.end, c.end)};
  }
  return all;
}

void Collage::read(int y, int x0, int x1, uint8_t* out) const {
  int x = x0;
  for (int k = 0; k < count; ++k) {
    const Part& part = parts[size_t(k)];
    const Columns c = covered(*this, part, y);
    const int from = std::max(c.begin, x), to = std::min(c.end, x1);
    if (c.empty() || from >= to) continue;
    std::memset(out + size_t(x - x0) * 3, kBorderValue, size_t(from - x) * 3);
    std::memcpy(out + size_t(from - x0) * 3, part.image->row(y - part.y) + size_t(from - part.x) * 3, size_t(to - from) * 3);
    x = to;
  }
  if (x < x1) std::memset(out + size_t(x - x0) * 3, kBorderValue, size_t(x1 - x) * 3);
}

void Collage::prefetch(int y, int x0, int x1) const {
  constexpr size_t kLine = 64;
  for (int k = 0; k < count; ++k) {
    const Part& part = parts[size_t(k)];
    const Columns c = covered(*this, part, y);
    const int from = std::max(c.begin, x0), to = std::min(c.end, x1);
    if (c.empty() || from >= to) continue;
    const uint8_t* const row = part.image->row(y - part.y);
    for (size_t at = size_t(from - part.x) * 3; at < size_t(to - part.x) * 3; at += kLine) __builtin_prefetch(row + at);
  }
}

void Collage::draw(PixelBox needed, Image& canvas) const {
  canvas.height = height;
  canvas.width = width;
  canvas.pixels.resize(size_t(height) * size_t(width) * 3);
  for (int y = needed.y0; y < needed.y1; ++y) read(y, needed.x0, needed.x1, canvas.row(y) + size_t(needed.x0) * 3);
}

}  // namespace tessera
