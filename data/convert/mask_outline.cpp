#include "data/convert/mask_outline.h"

namespace tessera {

namespace {

enum Direction { kEast, kSouth, kWest, kNorth };
constexpr int kStepX[] = {1, 0, -1, 0}, kStepY[] = {0, 1, 0, -1};

struct Mask {
  const uint8_t* pixels;
  int height, width;

  bool at(int x, int y) const { return x >= 0 && y >= 0 && x < width && y < height && pixels[int64_t(y) * width + x] != 0; }
  // Whether an edge leaves the corner (x, y), the top left one of pixel (x, y), with a set pixel on its right and none on its left.
  bool edge(int x, int y, Direction d) const {
    switch (d) {
      case kEast: return at(x, y) && !at(x, y - 1);
      case kSouth: return at(x - 1, y) && !at(x, y);
      case kWest: return at(x - 1, y - 1) && !at(x - 1, y);
      case kNorth: return at(x, y - 1) && !at(x - 1, y - 1);
    }
    return false;
  }
};

}  // namespace

std::vector<PrecisePolygon> mask_outline(const uint8_t* pixels, int height, int width) {
  const Mask mask{pixels, height, width};
  std::vector<PrecisePolygon> rings;
  // Every ring has an edge to the east: the top of its first pixel, or of the first one below a hole.
  std::vector<uint8_t> walked(size_t(height) * size_t(width));
  for (int y0 = 0; y0 < height; ++y0) {
    for (int x0 = 0; x0 < width; ++x0) {
      if (walked[size_t(y0) * size_t(width) + size_t(x0)] || !mask.edge(x0, y0, kEast)) continue;
      PrecisePolygon ring;
      int x = x0, y = y0;
      Direction d = kEast, last = kNorth;
      do {
        if (d != last) ring.push_back({double(x), double(y)});
        if (d == kEast) walked[size_t(y) * size_t(width) + size_t(x)] = 1;
        x += kStepX[d], y += kStepY[d];
        last = d;
        for (const int turn : {1, 0, 3}) {  // right first: pixels that meet in a corner have rings of their own
          d = Direction((last + turn) % 4);
          if (mask.edge(x, y, d)) break;
        }
      } while (x != x0 || y != y0 || d != kEast);
      rings.push_back(std::move(ring));
    }
  }
  return rings;
}

int label_components(const uint8_t* values, int height, int width, std::vector<int32_t>& component) {
  component.assign(size_t(height) * size_t(width), 0);
  std::vector<int64_t> open;
  int count = 0;
  for (int64_t first = 0; first < int64_t(height) * width; ++first) {
    if (values[first] == 0 || component[size_t(first)] != 0) continue;
    component[size_t(first)] = ++count;
    open.push_back(first);
    while (!open.empty()) {
      const int64_t at = open.back();
      open.pop_back();
      const int x = int(at % width), y = int(at / width);
      for (int ny = y - 1; ny <= y + 1; ++ny) {
        for (int nx = x - 1; nx <= x + 1; ++nx) {
          const int64_t next = int64_t(ny) * width + nx;
          if (nx < 0 || ny < 0 || nx >= width || ny >= height || values[next] != values[first] || component[size_t(next)] != 0)
            continue;
          component[size_t(next)] = count;
          open.push_back(next);
        }
      }
    }
  }
  return count;
}

}  // namespace tessera
