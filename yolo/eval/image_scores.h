// Which images a validation fails on: for each image what was found, missed and made up, at IoU 0.50 and one confidence for the
// whole set, the one with the best F1 of masks. Matches are those of the figures, in the style that is asked for, so that counts
// and figures agree.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "yolo/eval/coco_eval.h"

namespace tessera {

struct ImageScore {
  struct Counts {
    int64_t tp = 0, fp = 0, fn = 0;
    int64_t errors() const { return fp + fn; }
  };
  int64_t index = 0;  // in the data set
  int64_t objects = 0, detections = 0;
  Counts box, mask;
  double mask_iou = 0;  // mean over the masks that found an object; 0: none did

  double mask_f1() const;  // 1 for an image without objects and detections
};

struct ImageScores {
  double confidence = 0;  // detections with at least this score count
  std::vector<ImageScore> images;

  // Positions in `images`, worst first: by errors of masks, then by their mean IoU, then in the order of the images.
  std::vector<size_t> worst_first() const;
};

// Counts into `images`, whose indices and objects are set, position by DetectionMatch::image. Both lists hold the same detections.
void count_matches(std::span<const DetectionMatch> box, std::span<const DetectionMatch> mask, ImageScores& scores);

// The text of images.csv: a row an image, worst first; see docs/cli.md. file: of an index in the data set.
std::string to_csv(const ImageScores& scores, const std::function<std::string(int64_t index)>& file);

}  // namespace tessera
