// Four images around a random centre on a canvas of twice the size (spec 6.1).
#pragma once

#include <array>
#include <span>
#include <vector>

#include "data/instance.h"
#include "data/transforms/collage.h"

namespace tessera {

struct MosaicPart {
  const Image* image = nullptr;     // long side = imgsz
  std::vector<Instance> instances;  // in pixels of the image
};

// The canvas of 2s x 2s pixels. Order of the parts: top left, top right, bottom left, bottom right of the centre (xc, yc).
Collage mosaic_collage(const std::array<MosaicPart, 4>& parts, int s, int xc, int yc);

// The instances of all parts in order, moved to the canvas and clipped to it, without those whose box has no area. Polygons of different
// vertex counts are brought to the largest (spec 5.5). The parts lose theirs.
std::vector<Instance> mosaic_instances(std::array<MosaicPart, 4>& parts, const Collage& collage);

// Clips boxes and polygons to width x height.
void clip_instances(std::vector<Instance>& instances, int height, int width);

}  // namespace tessera
