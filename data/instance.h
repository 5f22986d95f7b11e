// One object on its way through the augmentations: class, box and polygon in pixels of the picture at hand.
#pragma once

#include <vector>

#include "data/image.h"
#include "data/polygon.h"

namespace tessera {

struct Instance {
  int32_t class_id = 0;
  BoxXyxy box;
  Polygon polygon;
};

// A picture and its objects.
struct LabeledImage {
  Image image;
  std::vector<Instance> instances;
};

}  // namespace tessera
