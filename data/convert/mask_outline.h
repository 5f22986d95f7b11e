// The outline of a mask along the edges of its pixels: what a polygon must be for the COCO rasterizer (spec 9.7) to give the same
// mask back. (data/polygon.h traces contours through pixel centres, as OpenCV does.)
#pragma once

#include <cstdint>
#include <vector>

#include "data/polygon.h"

namespace tessera {

// Rings around the set pixels of a row-major height x width mask, corners only, in whole pixels: pixel x covers [x, x + 1]. Holes
// have rings of their own; a point belongs to the mask when an odd number of rings surround it. By the first edge in raster order.
std::vector<PrecisePolygon> mask_outline(const uint8_t* mask, int height, int width);

// The 8-connected components of equal, non-zero values: component[y * width + x] is 0 for background, else 1, 2, ... by first pixel
// in raster order. Returns their number.
int label_components(const uint8_t* values, int height, int width, std::vector<int32_t>& component);

}  // namespace tessera
