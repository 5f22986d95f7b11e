// A rectangle of whole pixels (or cells) of an image, a mask or a canvas.
#pragma once

#include <algorithm>

namespace tessera {

// Columns [x0, x1), rows [y0, y1).
struct PixelBox {
  int x0 = 0, y0 = 0, x1 = 0, y1 = 0;

  int width() const { return x1 - x0; }  // of a box that is not empty
  int height() const { return y1 - y0; }
  bool empty() const { return x0 >= x1 || y0 >= y1; }
};

// Pixels of both; {} where there are none.
inline PixelBox common(const PixelBox& a, const PixelBox& b) {
  const PixelBox both{std::max(a.x0, b.x0), std::max(a.y0, b.y0), std::min(a.x1, b.x1), std::min(a.y1, b.y1)};
  return both.empty() ? PixelBox{} : both;
}

}  // namespace tessera
