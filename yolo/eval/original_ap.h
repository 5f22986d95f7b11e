// The original's own validation figures (spec 9.1 to 9.5), which differ from COCO's: matching by the most confident detection,
// linear interpolation, a triangle at the end of the curve. For comparison with its logs; `coco_eval.h` has the standard ones.
// Where the original sorts unstably (equal IoU or equal confidence), these functions keep the given order.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "data/polygon.h"
#include "data/rle.h"
#include "yolo/eval/detection_curves.h"

namespace tessera {

inline constexpr int kApThresholds = 10;  // IoU 0.50, 0.55, ..., 0.95 in float32

// iou[l * detections + d] in float32: inter / (area_l + area_d - inter + 1e-7).
std::vector<float> box_iou(std::span<const BoxXyxy> labels, std::span<const BoxXyxy> detections);
// The same for masks, areas in pixels.
std::vector<float> mask_iou(const RunList& labels, const RunList& detections);

// Which detections are true positives at which thresholds: bit t of result[d] (spec 9.3). Detections must be in descending
// confidence. For each threshold a detection claims its best label of its class, and a label accepts its first claimant.
std::vector<uint16_t> match_detections(std::span<const float> iou, std::span<const int32_t> label_classes,
                                       std::span<const int32_t> detection_classes);

struct ApDetection {
  float confidence = 0;
  int32_t class_id = 0;
  uint16_t tp = 0;  // as match_detections gives it
};

struct OriginalClassAp {
  int32_t class_id = 0;
  int64_t labels = 0;
  double precision = 0, recall = 0, f1 = 0;  // at the operating point of OriginalAp
  std::array<double, kApThresholds> ap{};

  double map() const;
};

// Figures of a whole data set, unweighted means over the classes that have labels; all 0 without labels. The operating point is the
// confidence where the smoothed mean F1 is largest.
struct OriginalAp {
  std::vector<OriginalClassAp> classes;  // of the labels, ascending
  double precision = 0, recall = 0, f1 = 0, map50 = 0, map75 = 0, map = 0, confidence = 0;
};

// `drawn`, if given, gets the curves of a run folder's plots.
OriginalAp original_ap(std::span<const ApDetection> detections, std::span<const int32_t> label_classes,
                       DetectionCurves* drawn = nullptr);

// (classes + 1)^2 counts, rows predicted, columns true, the last of each is background (spec 9.5). Boxes only.
class ConfusionMatrix {
 public:
  // A confidence of 0.001, the default of a validation, means 0.25, as in the original.
  explicit ConfusionMatrix(int32_t classes, double confidence = 0.25, double iou = 0.45);

  void add(std::span<const BoxXyxy> labels, std::span<const int32_t> label_classes, std::span<const BoxXyxy> detections,
           std::span<const int32_t> detection_classes, std::span<const float> confidences);

  int32_t classes() const { return classes_; }
  // Predicted classes as rows, true ones as columns, the background last in both.
  const std::vector<uint32_t>& counts() const { return counts_; }
  void add(std::span<const uint32_t> counts);  // another matrix's
  int64_t at(int32_t predicted, int32_t actual) const { return int64_t(counts_[index(predicted, actual)]); }
  // Divided by the sum of its column + 1e-9.
  double normalized(int32_t predicted, int32_t actual) const {
    return double(at(predicted, actual)) / (double(column_sums_[size_t(actual)]) + 1e-9);
  }

 private:
  size_t index(int32_t predicted, int32_t actual) const {
    return static_cast<size_t>(predicted) * size_t(classes_ + 1) + size_t(actual);
  }
  void count(int32_t predicted, int32_t actual) { ++counts_[index(predicted, actual)], ++column_sums_[size_t(actual)]; }

  int32_t classes_;
  float confidence_, iou_;
  std::vector<uint32_t> counts_;  // of thousands of classes there are millions: no wider than needed
  std::vector<int64_t> column_sums_;
};

}  // namespace tessera
