#include "data/transforms/mosaic.h"

#include <algorithm>
#include <cstring>

#include "data/transforms/letterbox.h"

namespace tessera {

void clip_instances(std::vector<Instance>& instances, int height, int width) {
  const BoxXyxy frame{0, 0, float(width), float(height)};
  for (Instance& i : instances) {
    i.box = {std::clamp(i.box.x1, 0.0f, frame.x2), std::clamp(i.box.y1, 0.0f, frame.y2), std::clamp(i.box.x2, 0.0f, frame.x2),
             std::clamp(i.box.y2, 0.0f, frame.y2)};
    clamp_points(i.polygon, frame);
  }
}

std::vector<Instance> mosaic(std::array<MosaicPart, 4>& parts, int s, int xc, int yc, Image& canvas, PixelBox needed) {
  const int side = 2 * s;
  canvas.height = canvas.width = side;
  canvas.pixels.resize(size_t(side) * size_t(side) * 3);
  struct Placed {
    int x1, y1, x2, y2;    // on the canvas
    int shift_x, shift_y;  // from the picture to the canvas
  };
  std::array<Placed, 4> placed;
  size_t vertices = 0;
  bool uneven = false;
  for (size_t k = 0; k < 4; ++k) {
    const int w = parts[k].image->width, h = parts[k].image->height;
    const int ox = k % 2 == 0 ? xc - w : xc, oy = k < 2 ? yc - h : yc;  // where the picture's corner comes to lie
    placed[k] = {std::max(ox, 0), std::max(oy, 0), std::min(ox + w, side), std::min(oy + h, side), ox, oy};
    for (const Instance& i : parts[k].instances) {
      uneven |= vertices != 0 && vertices != i.polygon.size();
      vertices = std::max(vertices, i.polygon.size());
    }
  }

  // Row by row, upper and lower pair: border, left picture, right picture, border; each byte is written once.
  for (int y = needed.y0; y < needed.y1; ++y) {
    uint8_t* row = canvas.row(y);
    int x = needed.x0;
    const size_t pair = y < yc ? 0 : 2;
    for (size_t k = pair; k < pair + 2; ++k) {
      const Placed& p = placed[k];
      const int x1 = std::max(p.x1, needed.x0), x2 = std::min(p.x2, needed.x1);
      if (y < p.y1 || y >= p.y2 || x1 >= x2) continue;
      std::memset(row + x * 3, kBorderValue, size_t(x1 - x) * 3);
      std::memcpy(row + x1 * 3, parts[k].image->row(y - p.shift_y) + size_t(x1 - p.shift_x) * 3, size_t(x2 - x1) * 3);
      x = x2;
    }
    std::memset(row + x * 3, kBorderValue, size_t(needed.x1 - x) * 3);
  }

  std::vector<Instance> out;
  for (size_t k = 0; k < 4; ++k) {
    const float dx = float(placed[k].shift_x), dy = float(placed[k].shift_y);
    for (Instance& i : parts[k].instances) {
      i.box = {i.box.x1 + dx, i.box.y1 + dy, i.box.x2 + dx, i.box.y2 + dy};
      for (Point& p : i.polygon) p = {p.x + dx, p.y + dy};
      if (uneven && !i.polygon.empty()) i.polygon = resample(i.polygon, int64_t(vertices));
      out.push_back(std::move(i));
    }
    parts[k].instances.clear();
  }
  clip_instances(out, side, side);
  std::erase_if(out, [](const Instance& i) { return !(i.box.width() * i.box.height() > 0); });
  return out;
}

}  // namespace tessera
