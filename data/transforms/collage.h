// Images side by side on a canvas of the border colour. The canvas is made row by row where it is looked at: a mosaic of 640 would
// have 4.9 MB, of which a warp sees a part and needs two rows at a time.
#pragma once

#include <array>
#include <cstdint>

#include "data/image.h"
#include "data/polygon.h"

namespace tessera {

// Columns [begin, end) of a row; empty when begin >= end.
struct Columns {
  int begin = 0, end = 0;
  bool empty() const { return begin >= end; }
};

struct Collage {
  struct Part {
    const Image* image = nullptr;
    int x = 0, y = 0;  // where its corner lies on the canvas; what reaches beyond the canvas is cut off
  };
  int height = 0, width = 0;
  std::array<Part, 4> parts;  // without overlap; of two that share rows the left one first
  int count = 0;

  void add(const Image& image, int x, int y) { parts[size_t(count++)] = {&image, x, y}; }

  // Where row y has images: outside all is border. Rows beyond the canvas have none.
  Columns filled(int y) const;

  // Columns [begin, end) of a row where they lie in memory.
  struct Stretch {
    int begin = 0, end = 0;
    const uint8_t* bytes = nullptr;  // of column `begin`
    int64_t pitch = 0;               // from there to the row below; 0 for border
  };
  using Stretches = std::array<Stretch, 9>;

  // Pixels [x0, x1) of row y from left to right, without gaps; all beyond the canvas is border, of which `border` holds x1 - x0
  // pixels. How many stretches they are.
  int stretches(int y, int x0, int x1, const uint8_t* border, Stretches& out) const;

  // The pixels inside `needed`, on a canvas whose memory is used again; the others are left as they are.
  void draw(PixelBox needed, Image& canvas) const;
};

}  // namespace tessera
