// What the network found in the images of a batch. Decoding and non-maximum suppression run where the network did
// (tensor/ops/detect.h); only the table of detections comes to the host.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "data/polygon.h"
#include "tensor/ops/detect.h"
#include "yolo/blocks/segment.h"

namespace tessera {

// Of one image, in descending score.
struct Detections {
  std::vector<BoxXyxy> boxes;  // network-input pixels, not clipped
  std::vector<float> scores;
  std::vector<int32_t> classes;
  std::vector<int32_t> anchors;  // counted row by row over (level, y, x)

  int64_t size() const { return static_cast<int64_t>(boxes.size()); }
};

struct BatchDetections {
  std::vector<Detections> images;
  // Where the network ran, for the masks (masks.h).
  Tensor prototypes;    // (N, h, w, masks)
  Tensor coefficients;  // (N, most detections of an image, masks)

  // Of detection i of an image among the coefficients.
  int32_t row(int64_t image, int64_t i) const { return int32_t(image * coefficients.size(1) + i); }
};

// classes: when not empty, only these. Error(kUsage) for a confidence or an IoU outside 0 to 1.
BatchDetections detect(const RawOutputs& outputs, const std::array<int64_t, kAnchorLevels>& strides, const DetectParams& params,
                       std::span<const int32_t> classes = {});

}  // namespace tessera
