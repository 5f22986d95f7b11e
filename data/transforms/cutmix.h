// A rectangle of another image with the objects in it (spec 6.5).
#pragma once

#include <array>

#include "data/instance.h"
#include "data/rasterize.h"
#include "tensor/base/rng.h"

namespace tessera {

struct CutmixDraw {
  std::array<PixelBox, 3> areas;  // one of those that overlap no object is taken
  double choice = 0;              // which, in [0, 1)
};
CutmixDraw draw_cutmix(Rng& rng, int height, int width);

// Around (x, y), within the image; its sides are sqrt(1 - lambda) of the image's, rounded down.
PixelBox cutmix_area(double lambda, int x, int y, int height, int width);

// Pixels of `other` in the area, and those of its objects that have 1 % of their box there (10 % in an image without objects),
// clipped to it. Nothing happens when every area overlaps an object or none of the other's is in it. Sizes must be equal.
void cutmix(LabeledImage& into, LabeledImage&& other, const CutmixDraw& draw);

}  // namespace tessera
