// --multi-scale (spec 6.10): each training batch gets a size of its own, from half of imgsz to one and a half; the network sees its
// images enlarged or reduced to that. Boxes are fractions of the image, masks are resized by the loss.
#pragma once

#include <cstdint>

#include "data/image.h"

namespace tessera {

// The longer side of a batch's network input, a multiple of 32: a function of seed, epoch and batch alone, so that a resumed run
// and all ranks draw the same.
int64_t multi_scale_side(int64_t imgsz, uint64_t seed, int64_t epoch, int64_t batch);

// The least and the largest that is drawn.
struct MultiScaleRange {
  int64_t least, largest;
};
MultiScaleRange multi_scale_range(int64_t imgsz);

// Of images, whose longer side becomes `side`; both sides are rounded up to multiples of 32.
Size multi_scale_input(Size images, int64_t side);

}  // namespace tessera
