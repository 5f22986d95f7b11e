// The ground truth of a batch in the form the assigner works with: for each image its objects in batch order, padded to one number
// for all (spec 7.1).
#pragma once

#include <cstdint>
#include <vector>

#include "data/sample.h"
#include "tensor/tensor.h"

namespace tessera {

// N images with room for G objects each, on the host or a device.
struct PaddedTargets {
  Tensor boxes;     // f32 (N, G, 4): x1 y1 x2 y2 in pixels of the network input; zeros for padding
  Tensor classes;   // i32 (N, G); -1 for padding and where x1 + y1 + x2 + y2 <= 0
  Tensor mask_ids;  // i32 (N, G): overlapping masks: value of the index map, 1 + column; separate: plane, the place in the batch's
                    // list
  int32_t largest_class = -1;
};

// On the host. Image size in pixels; G is the number of objects of the fullest image, but at least `room`. TESSERA_CHECK when a
// target names an image outside the batch or a class below 0.
PaddedTargets pad_targets(const std::vector<Target>& targets, const std::vector<int32_t>& target_image, bool overlap,
                          int64_t images, int64_t height, int64_t width, int64_t room = 0);

}  // namespace tessera
