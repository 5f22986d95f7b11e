// The ground truth of a batch in the form the loss works with: for each image its objects in batch order, padded to the largest
// count (spec 7.1); and the anchors, one in the middle of each cell of each level.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "data/sample.h"
#include "yolo/blocks/segment.h"

namespace tessera {

struct PaddedTargets {
  int64_t images = 0;
  int64_t width = 0;                        // G: objects of the fullest image
  std::vector<int32_t> classes;             // images x G
  std::vector<std::array<float, 4>> boxes;  // images x G: x1 y1 x2 y2 in pixels of the network input; zeros for padding
  std::vector<uint8_t> valid;               // images x G: x1 + y1 + x2 + y2 > 0
  std::vector<int32_t> source;              // images x G: position in the batch's target list; -1 for padding

  size_t at(int64_t image, int64_t g) const { return size_t(image * width + g); }
};

// Image size in pixels. TESSERA_CHECK when a target names an image outside the batch.
PaddedTargets pad_targets(const std::vector<Target>& targets, const std::vector<int32_t>& target_image, int64_t images,
                          int64_t height, int64_t width);

// Anchors of all levels in the order of RawOutputs: (level, y, x), middle of the cell.
struct Anchors {
  std::vector<float> x, y;                   // pixels
  std::vector<float> stride;                 // of the anchor's level
  std::array<int64_t, kLevels + 1> first{};  // first anchor of each level; first[kLevels] = count
  std::array<int64_t, kLevels> level_stride{};

  int64_t count() const { return first[kLevels]; }
  int level(int64_t anchor) const { return anchor < first[1] ? 0 : anchor < first[2] ? 1 : 2; }
};
// Maps of the given (height, width), finest first. `image_height` tells the strides: image_height / map height.
Anchors make_anchors(const std::array<std::array<int64_t, 2>, kLevels>& maps, int64_t image_height);

}  // namespace tessera
