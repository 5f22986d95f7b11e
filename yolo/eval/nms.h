// Non-maximum suppression of one image exactly as the original does it (spec 4.1): float32, strict comparisons, classes kept apart
// by an offset of 7680 pixels that also quantises the boxes of high class numbers. Two liberties: sorting is stable where the
// original's choice of the best 30000 is not, and there is no time limit, which makes results depend on the machine.
#pragma once

#include <cstdint>
#include <vector>

#include "data/polygon.h"

namespace tessera {

// In descending score.
struct Detections {
  std::vector<BoxXyxy> boxes;  // network-input pixels, not clipped
  std::vector<float> scores;
  std::vector<int32_t> classes;
  std::vector<int32_t> anchors;     // row of the prediction
  std::vector<float> coefficients;  // size() x masks
  int64_t masks = 0;

  int64_t size() const { return static_cast<int64_t>(boxes.size()); }
  const float* coefficients_of(int64_t i) const { return coefficients.data() + i * masks; }
  void keep(const std::vector<uint8_t>& wanted);  // drops the detections whose entry is 0
};

struct NmsOptions {
  float confidence = 0.25f;      // scores must be greater
  double iou = 0.7;              // overlaps must be greater to suppress
  bool multi_label = false;      // one candidate for each class above the confidence, not only the best (validation)
  bool agnostic = false;         // classes suppress each other
  std::vector<int32_t> classes;  // when not empty: only these
  int64_t max_detections = 300;
};

// rows: anchors x [cx, cy, w, h in pixels, nc scores, coefficients], `pitch` floats from row to row. Throws kUsage for a confidence
// or IoU outside [0, 1].
Detections non_max_suppression(const float* rows, int64_t anchors, int64_t nc, int64_t masks, int64_t pitch,
                               const NmsOptions& options);

}  // namespace tessera
