// Masks, boxes and labels drawn into an image. Nothing outside of the annotations is touched: a mask changes its own pixels, a box
// those of its lines, a label its rectangle above (or, without room there, inside) the box.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"
#include "data/polygon.h"
#include "tensor/pixel_box.h"

namespace tessera {

// Part of a mask of the image; what lies outside of the image is not drawn.
struct MaskArea {
  PixelBox where;
  std::vector<uint8_t> bytes;  // of `where`, row by row; not 0: set
};

struct Annotation {
  int32_t class_id = 0;  // decides the colour
  std::string label;     // may be empty
  BoxXyxy box;           // image pixels
  MaskArea mask;         // may be empty
};

struct AnnotateOptions {
  bool masks = true, boxes = true, labels = true;
  double alpha = 0.5;    // of masks
  int line_width = 0;    // 0: max(round((height + width + 3) / 2 * 0.003), 2) (spec 4.5); 1 below 200 pixels
  double font_size = 0;  // 0: by the size of the image, 9 to 28
};

// Annotations in order of importance: the first ends up on top.
void annotate(Image& image, std::span<const Annotation> annotations, const AnnotateOptions& options = {});

// Every pixel repeated factor x factor times, for images that are too small to be written on.
Image enlarge(const Image& image, int factor);
// The annotation for an image `factor` times as large; masks take the nearest pixel.
Annotation scaled(const Annotation& annotation, double factor);

}  // namespace tessera
