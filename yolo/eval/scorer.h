// Gathers what the images of a validation contribute, in the order of the data set, and turns it into figures at the end: by
// CocoEval, or by the original's rules.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "yolo/eval/coco_eval.h"
#include "yolo/eval/detection_curves.h"
#include "yolo/eval/image_result.h"
#include "yolo/eval/image_scores.h"
#include "yolo/eval/original_ap.h"
#include "yolo/metrics.h"

namespace tessera {

struct CocoImageResult;

class Scorer {
 public:
  // `names`: of the classes, by id. They and the data set must outlive this.
  Scorer(const std::vector<std::string>& names, MapStyle style, const SegDataset& data);

  void add(std::span<const ImageResult> results);

  // What finish() computes besides the figures; null: not asked for.
  struct Extras {
    DetectionCurves *box_curves = nullptr, *mask_curves = nullptr;
    ImageScores* images = nullptr;
  };
  // Sets images, instances, box, mask and classes of `r`. Once, after the last image.
  void finish(ValidationResult& r, const Extras& extras);

 private:
  struct ClassCount {
    int64_t images = 0, instances = 0;
    int64_t last_image = 0;  // the last one counted, of 1, 2, ...
  };
  // What original_ap() is given: detections and labels of all images, one image after the other.
  struct OriginalRecords {
    std::vector<ApDetection> box, mask;
    std::vector<float> mask_iou;     // of each detection
    std::vector<size_t> image_ends;  // in these three lists
    std::vector<int32_t> label_classes;
  };
  using Classes = std::map<int32_t, ClassMetrics>;  // by class id

  void count(const ScanImage& labels);
  void add_to_coco(CocoImageResult&& image, const ImageResult& result, const ScanImage& labels);
  void add_to_records(const ImageResult& result);
  // Each sets the figures of `r` and of `classes`, and returns the matches behind them if extras.images asks for them.
  struct Matches {
    std::vector<DetectionMatch> box, mask;
  };
  Matches finish_coco(ValidationResult& r, Classes& classes, const Extras& extras);
  Matches finish_original(ValidationResult& r, Classes& classes, const Extras& extras);
  std::vector<DetectionMatch> matches_of(std::span<const ApDetection> detections, std::span<const float> iou) const;

  const std::vector<std::string>& names_;
  const SegDataset& data_;
  std::optional<CocoEval> coco_;  // of COCO's style
  OriginalRecords records_;       // of the original's
  ImageScores scores_;
  std::map<int32_t, ClassCount> counts_;  // by class id
  int64_t images_ = 0, instances_ = 0;
};

}  // namespace tessera
