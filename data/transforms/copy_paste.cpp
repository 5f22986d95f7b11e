#include "data/transforms/copy_paste.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "data/transforms/flip.h"
#include "tensor/base/check.h"

namespace tessera {

namespace {

// `row_of(y)`: row y of the image that the candidates are in.
void paste(LabeledImage& target, std::vector<Instance> candidates, double share, const std::function<const uint8_t*(int)>& row_of) {
  Image& image = target.image;
  struct Candidate {
    size_t index;
    float worst;
  };
  std::vector<Candidate> eligible;
  for (size_t i = 0; i < candidates.size(); ++i) {
    float worst = 0;
    for (const Instance& other : target.instances) worst = std::max(worst, intersection_over_area(candidates[i].box, other.box));
    if (worst < 0.30f) eligible.push_back({i, worst});
  }
  std::stable_sort(eligible.begin(), eligible.end(), [](const Candidate& a, const Candidate& b) { return a.worst < b.worst; });
  eligible.resize(std::min(eligible.size(), size_t(std::nearbyint(share * double(eligible.size())))));
  if (eligible.empty()) return;

  std::vector<uint8_t> mask(size_t(image.height) * size_t(image.width), 0);
  PixelBox covered{image.width, image.height, 0, 0};
  for (const Candidate& c : eligible) {
    const PixelBox b = fill_polygon(candidates[c.index].polygon, mask.data(), image.height, image.width);
    if (!b.empty())
      covered = {std::min(covered.x0, b.x0), std::min(covered.y0, b.y0), std::max(covered.x1, b.x1), std::max(covered.y1, b.y1)};
    target.instances.push_back(std::move(candidates[c.index]));
  }
  if (covered.empty()) return;
  for (int y = covered.y0; y < covered.y1; ++y) {
    const uint8_t* const from = row_of(y);
    uint8_t* row = image.row(y);
    const uint8_t* m = mask.data() + size_t(y) * size_t(image.width);
    for (int x = covered.x0; x < covered.x1; ++x)
      if (m[x] != 0) std::memcpy(row + size_t(x) * 3, from + size_t(x) * 3, 3);
  }
}

}  // namespace

bool has_polygons(const std::vector<Instance>& instances) {
  return std::any_of(instances.begin(), instances.end(), [](const Instance& i) { return !i.polygon.empty(); });
}

void copy_paste_flip(LabeledImage& target, double share) {
  if (share <= 0 || !has_polygons(target.instances)) return;
  const Image& image = target.image;
  std::vector<Instance> mirrored = target.instances;
  flip_horizontal(mirrored, image.width);
  std::vector<uint8_t> row(size_t(image.width) * 3);
  paste(target, std::move(mirrored), share, [&](int y) {
    const uint8_t* const from = image.row(y);
    for (int x = 0; x < image.width; ++x) std::memcpy(row.data() + size_t(x) * 3, from + size_t(image.width - 1 - x) * 3, 3);
    return row.data();
  });
}

void copy_paste_from(LabeledImage& target, const LabeledImage& other, double share) {
  TESSERA_CHECK(target.image.height == other.image.height && target.image.width == other.image.width, "copy_paste: {}x{} and {}x{}",
                target.image.height, target.image.width, other.image.height, other.image.width);
  if (share <= 0 || !has_polygons(target.instances)) return;
  paste(target, other.instances, share, [&](int y) { return other.image.row(y); });
}

}  // namespace tessera
