// Four pictures around a random centre on a canvas of twice the size (spec 6.1).
#pragma once

#include <array>
#include <span>
#include <vector>

#include "data/instance.h"

namespace tessera {

struct MosaicPart {
  const Image* image = nullptr;     // long side = imgsz
  std::vector<Instance> instances;  // in pixels of the image
};

// Writes the canvas of 2s x 2s pixels into `canvas` (its memory is used again) and returns the instances of all parts in order,
// moved, clipped to the canvas, without those whose box has no area. Order of the parts: top left, top right, bottom left, bottom
// right of the centre (xc, yc). Polygons of different vertex counts are brought to the largest (spec 5.5).
// Pixels outside `needed` are left as they are: on average a warp looks at a third of the canvas.
std::vector<Instance> mosaic(std::array<MosaicPart, 4>& parts, int s, int xc, int yc, Image& canvas, PixelBox needed);

// Clips boxes and polygons to width x height.
void clip_instances(std::vector<Instance>& instances, int height, int width);

}  // namespace tessera
