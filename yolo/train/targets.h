// The ground truth of a batch in the form that the assigner works with: the objects of each image in batch order, padded to the
// same number for all images (spec 7.1).
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
  // i32 (N, G): what the masks call the object. With overlap its value in the image's index map, 1 + column; without, the plane of
  // its own mask, which is its place in the batch's list.
  Tensor mask_ids;
  int32_t largest_class = -1;  // -1: no objects
};

// On the host. Image size in pixels; G is the number of objects of the fullest image, but at least `room`. TESSERA_CHECK when a
// target names an image outside the batch or a class below 0.
PaddedTargets pad_targets(const std::vector<Target>& targets, const std::vector<int32_t>& target_image, bool overlap,
                          int64_t images, int64_t height, int64_t width, int64_t room = 0);

}  // namespace tessera
