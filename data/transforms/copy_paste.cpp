#include "data/transforms/copy_paste.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/transforms/flip.h"

namespace tessera {

namespace {

// Intersection over the area of b.
float intersection_over_area(const BoxXyxy& a, const BoxXyxy& b) {
  const float w = std::max(std::min(a.x2, b.x2) - std::max(a.x1, b.x1), 0.0f);
  const float h = std::max(std::min(a.y2, b.y2) - std::max(a.y1, b.y1), 0.0f);
  return w * h / (b.width() * b.height() + 1e-7f);
}

}  // namespace

void copy_paste_flip(LabeledImage& picture, double share) {
  const bool polygons =
      std::any_of(picture.instances.begin(), picture.instances.end(), [](const Instance& i) { return !i.polygon.empty(); });
  if (share <= 0 || !polygons) return;
  Image& image = picture.image;
  std::vector<Instance> mirrored = picture.instances;
  flip_horizontal(mirrored, image.width);
  struct Candidate {
    size_t index;
    float worst;
  };
  std::vector<Candidate> eligible;
  for (size_t i = 0; i < mirrored.size(); ++i) {
    float worst = 0;
    for (const Instance& other : picture.instances) worst = std::max(worst, intersection_over_area(mirrored[i].box, other.box));
    if (worst < 0.30f) eligible.push_back({i, worst});
  }
  std::stable_sort(eligible.begin(), eligible.end(), [](const Candidate& a, const Candidate& b) { return a.worst < b.worst; });
  eligible.resize(std::min(eligible.size(), size_t(std::nearbyint(share * double(eligible.size())))));
  if (eligible.empty()) return;

  std::vector<uint8_t> mask(size_t(image.height) * size_t(image.width), 0);
  PixelBox covered{image.width, image.height, 0, 0};
  for (const Candidate& c : eligible) {
    const PixelBox b = fill_polygon(mirrored[c.index].polygon, mask.data(), image.height, image.width);
    if (!b.empty())
      covered = {std::min(covered.x0, b.x0), std::min(covered.y0, b.y0), std::max(covered.x1, b.x1), std::max(covered.y1, b.y1)};
    picture.instances.push_back(std::move(mirrored[c.index]));
  }
  if (covered.empty()) return;
  std::vector<uint8_t> old(size_t(image.width) * 3);
  for (int y = covered.y0; y < covered.y1; ++y) {
    uint8_t* row = image.row(y);
    std::memcpy(old.data(), row, old.size());
    const uint8_t* m = mask.data() + size_t(y) * size_t(image.width);
    for (int x = covered.x0; x < covered.x1; ++x)
      if (m[x] != 0) std::memcpy(row + size_t(x) * 3, old.data() + size_t(image.width - 1 - x) * 3, 3);
  }
}

}  // namespace tessera
