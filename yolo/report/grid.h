// Several images side by side on one sheet, each with a caption.
#pragma once

#include <span>
#include <string>

#include "data/image.h"

namespace tessera {

// `columns` images a row, each in a cell of the largest image's size, top left aligned, thin white lines between them. A sheet
// whose longer side would exceed max_side is made smaller. captions: one for each image, or none; drawn onto the upper left corner.
// No images give a small blank sheet.
Image tile_images(std::span<const Image> images, std::span<const std::string> captions, int columns, int max_side);

// How large each of `count` equal images of height x width may be drawn, so that a nearly square sheet of them is about `side`
// pixels large: a whole factor, at most 8, when enlarging.
struct GridPlan {
  int columns = 1;
  double scale = 1;
};
GridPlan plan_grid(int count, int height, int width, int side);

}  // namespace tessera
