#include "data/transforms/cutmix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/base/check.h"

namespace tessera {

PixelBox cutmix_area(double lambda, int x, int y, int height, int width) {
  const double ratio = std::sqrt(1 - lambda);
  const int half_w = int(width * ratio) / 2, half_h = int(height * ratio) / 2;
  return {std::clamp(x - half_w, 0, width), std::clamp(y - half_h, 0, height), std::clamp(x + half_w, 0, width),
          std::clamp(y + half_h, 0, height)};
}

CutmixDraw draw_cutmix(Rng& rng, int height, int width) {
  CutmixDraw d;
  for (PixelBox& area : d.areas) {
    const double lambda = rng.uniform();
    const int x = int(rng.below(width)), y = int(rng.below(height));
    area = cutmix_area(lambda, x, y, height, width);
  }
  d.choice = rng.uniform();
  return d;
}

void cutmix(LabeledImage& into, LabeledImage&& other, const CutmixDraw& draw) {
  TESSERA_CHECK(into.image.height == other.image.height && into.image.width == other.image.width, "cutmix: {}x{} and {}x{}",
                into.image.height, into.image.width, other.image.height, other.image.width);
  std::vector<PixelBox> free;
  const auto box_of = [](const PixelBox& a) { return BoxXyxy{float(a.x0), float(a.y0), float(a.x1), float(a.y1)}; };
  for (const PixelBox& area : draw.areas) {
    const auto overlaps = [&](const Instance& i) { return intersection_over_area(box_of(area), i.box) > 0; };
    if (std::none_of(into.instances.begin(), into.instances.end(), overlaps)) free.push_back(area);
  }
  if (free.empty()) return;
  const PixelBox area = free[size_t(draw.choice * double(free.size()))];
  const BoxXyxy frame = box_of(area);
  const float least = into.instances.empty() ? 0.10f : 0.01f;
  std::erase_if(other.instances, [&](const Instance& i) { return !(intersection_over_area(frame, i.box) >= least); });
  if (other.instances.empty()) return;
  for (Instance& i : other.instances) {
    i.box = {std::clamp(i.box.x1, frame.x1, frame.x2), std::clamp(i.box.y1, frame.y1, frame.y2),
             std::clamp(i.box.x2, frame.x1, frame.x2), std::clamp(i.box.y2, frame.y1, frame.y2)};
    clamp_points(i.polygon, frame);
    into.instances.push_back(std::move(i));
  }
  for (int y = area.y0; y < area.y1; ++y) {
    std::memcpy(into.image.row(y) + size_t(area.x0) * 3, other.image.row(y) + size_t(area.x0) * 3, size_t(area.x1 - area.x0) * 3);
  }
}

}  // namespace tessera
