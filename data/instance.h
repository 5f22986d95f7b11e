// One object on its way through the augmentations: class, box and polygon in pixels of the image at hand.
#pragma once

#include <algorithm>
#include <vector>

#include "data/image.h"
#include "data/polygon.h"

namespace tessera {

struct Instance {
  int32_t class_id = 0;
  BoxXyxy box;
  Polygon polygon;
};

// Intersection of two boxes over the area of the second.
inline float intersection_over_area(const BoxXyxy& a, const BoxXyxy& b) {
  const float w = std::max(std::min(a.x2, b.x2) - std::max(a.x1, b.x1), 0.0f);
  const float h = std::max(std::min(a.y2, b.y2) - std::max(a.y1, b.y1), 0.0f);
  return w * h / (b.width() * b.height() + 1e-7f);
}

// An image and its objects.
struct LabeledImage {
  Image image;
  std::vector<Instance> instances;
};

}  // namespace tessera
