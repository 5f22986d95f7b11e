// The loss of the original (spec 7): box (CIoU), mask (cross-entropy inside the box), class (cross-entropy over all anchors) and
// distance bins (DFL), on the anchors that the task-aligned assigner chose.
#pragma once

#include "yolo/metrics.h"
#include "yolo/train/assigner.h"

namespace tessera {

struct LossGains {
  double box = 7.5;  // also of the mask term, as in the original
  double cls = 0.5;
  double dfl = 1.5;
};

struct LossResult {
  Variable total;   // scalar to differentiate: sum of the four items times the batch size
  LossItems items;  // gained, not times the batch size
  int64_t positives = 0;
  double target_score_sum = 0;  // before it is held at 1 or more
};

class SegmentationLoss {
 public:
  explicit SegmentationLoss(const LossGains& gains = {}, const std::array<int64_t, kLevels>& strides = {8, 16, 32})
      : gains_(gains), strides_(strides) {}

  // Outputs f32, recorded or not, on any device; the batch is on the host, and so is the total. Of the batch: targets, target_image, overlap and masks (i32, resized to the prototypes by nearest
  // neighbour when of another size); masks may be undefined when there are no targets.
  LossResult operator()(const RawOutputs& outputs, const Batch& batch) const;

 private:
  LossGains gains_;
  std::array<int64_t, kLevels> strides_;
};

// i32 masks (planes, h, w) at another size; source row = floor(row * h / height), likewise columns (spec 14.3).
Tensor resize_masks(const Tensor& masks, int64_t height, int64_t width);

}  // namespace tessera
