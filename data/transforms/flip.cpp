#include "data/transforms/flip.h"

#include <cstring>

namespace tessera {

void flip_horizontal(std::vector<Instance>& instances, int width) {
  const float w = float(width);
  for (Instance& i : instances) {
    i.box = {w - i.box.x2, i.box.y1, w - i.box.x1, i.box.y2};
    for (Point& p : i.polygon) p.x = w - p.x;
  }
}

void flip_vertical(std::vector<Instance>& instances, int height) {
  const float h = float(height);
  for (Instance& i : instances) {
    i.box = {i.box.x1, h - i.box.y2, i.box.x2, h - i.box.y1};
    for (Point& p : i.polygon) p.y = h - p.y;
  }
}

void copy_flipped(const uint8_t* source, int height, int width, uint8_t* target, const CopyOptions& options) {
  const size_t pitch = size_t(width) * 3;
  const size_t red = options.swap_channels ? 2 : 0, blue = 2 - red;
  for (int y = 0; y < height; ++y) {
    const uint8_t* from = source + size_t(options.vertical ? height - 1 - y : y) * pitch;
    uint8_t* to = target + size_t(y) * pitch;
    if (!options.horizontal && !options.swap_channels) {
      std::memcpy(to, from, pitch);
    } else if (options.horizontal) {
      for (int x = 0; x < width; ++x) {
        const uint8_t* p = from + size_t(width - 1 - x) * 3;
        to[0] = p[red], to[1] = p[1], to[2] = p[blue];
        to += 3;
      }
    } else {
      for (int x = 0; x < width; ++x, from += 3, to += 3) to[0] = from[2], to[1] = from[1], to[2] = from[0];
    }
  }
}

}  // namespace tessera
