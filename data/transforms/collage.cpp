#include "data/transforms/collage.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "tensor/augment.h"

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

int Collage::stretches(int y, int x0, int x1, const uint8_t* border, Stretches& out) const {
  int n = 0, x = x0;
  const auto border_up_to = [&](int end) {
    if (x < end) out[size_t(n++)] = {x, end, border, 0};
    x = end;
  };
  for (int k = 0; k < count; ++k) {
    const Part& part = parts[size_t(k)];
    const Columns c = covered(*this, part, y);
    const int from = std::max(c.begin, x), to = std::min(c.end, x1);
    if (c.empty() || from >= to) continue;
    border_up_to(from);
    out[size_t(n++)] = {from, to, part.image->row(y - part.y) + size_t(from - part.x) * 3, int64_t(part.image->width) * 3};
    x = to;
  }
  border_up_to(x1);
  return n;
}

void Collage::draw(PixelBox needed, Image& canvas) const {
  canvas.height = height;
  canvas.width = width;
  canvas.pixels.resize(size_t(height) * size_t(width) * 3);
  const std::vector<uint8_t> border(size_t(std::max(needed.x1 - needed.x0, 0)) * 3, kBorderValue);
  Stretches found;
  for (int y = needed.y0; y < needed.y1; ++y) {
    const int n = stretches(y, needed.x0, needed.x1, border.data(), found);
    for (const Stretch& s : std::span(found).first(size_t(n)))
      std::memcpy(canvas.row(y) + size_t(s.begin) * 3, s.bytes, size_t(s.end - s.begin) * 3);
  }
}

}  // namespace tessera
