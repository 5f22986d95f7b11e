// Polygons to the mask targets of the loss: filled at the full input size, then reduced (spec 5.6).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/instance.h"

namespace tessera {

struct MaskTargets {
  int height = 0, width = 0;    // input size / ratio, rounded down
  std::vector<int64_t> order;   // instances in the order of the mask values; separate form: 0, 1, 2, ...
  std::vector<int32_t> values;  // as Sample::masks
};

// One index map: instances by falling reduced area, those without any pixel first, equal areas in order; later (smaller) ones cover
// earlier ones; value = position in `order` + 1. The map is int32 throughout: the original's 8-bit one wraps around between 129 and
// 255 instances and garbles labels, this one does not (spec 5.6, 3).
MaskTargets overlap_masks(std::span<const Instance> instances, int height, int width, int ratio);

// One 0/1 plane for each instance, in order.
MaskTargets separate_masks(std::span<const Instance> instances, int height, int width, int ratio);

}  // namespace tessera
