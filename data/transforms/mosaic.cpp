#include "data/transforms/mosaic.h"

#include <algorithm>

namespace tessera {

void clip_instances(std::vector<Instance>& instances, int height, int width) {
  const BoxXyxy frame{0, 0, float(width), float(height)};
  for (Instance& i : instances) {
    i.box = {std::clamp(i.box.x1, 0.0f, frame.x2), std::clamp(i.box.y1, 0.0f, frame.y2), std::clamp(i.box.x2, 0.0f, frame.x2),
             std::clamp(i.box.y2, 0.0f, frame.y2)};
    clamp_points(i.polygon, frame);
  }
}

Collage mosaic_collage(const std::array<MosaicPart, 4>& parts, int s, int xc, int yc) {
  Collage c;
  c.height = c.width = 2 * s;
  for (size_t k = 0; k < 4; ++k) {
    const Image& image = *parts[k].image;
    c.add(image, k % 2 == 0 ? xc - image.width : xc, k < 2 ? yc - image.height : yc);
  }
  return c;
}

std::vector<Instance> mosaic_instances(std::array<MosaicPart, 4>& parts, const Collage& collage) {
  size_t vertices = 0, count = 0;
  bool uneven = false;
  for (const MosaicPart& part : parts)
    for (const Instance& i : part.instances) {
      uneven |= vertices != 0 && vertices != i.polygon.size();
      vertices = std::max(vertices, i.polygon.size());
      ++count;
    }
  std::vector<Instance> out;
  out.reserve(count);
  for (size_t k = 0; k < 4; ++k) {
    const float dx = float(collage.parts[k].x), dy = float(collage.parts[k].y);
    for (Instance& i : parts[k].instances) {
      i.box = {i.box.x1 + dx, i.box.y1 + dy, i.box.x2 + dx, i.box.y2 + dy};
      for (Point& p : i.polygon) p = {p.x + dx, p.y + dy};
      if (uneven && !i.polygon.empty()) i.polygon = resample(i.polygon, int64_t(vertices));
      out.push_back(std::move(i));
    }
    parts[k].instances.clear();
  }
  clip_instances(out, collage.height, collage.width);
  std::erase_if(out, [](const Instance& i) { return !(i.box.width() * i.box.height() > 0); });
  return out;
}

}  // namespace tessera
