// The curves behind BoxPR_curve.png and its like: of every class with objects, at IoU 0.50, precision over recall, and precision,
// recall and F1 over confidence. They follow the matches and rules of the style of mAP that is reported, so that a plot and the
// figures beside it agree.
//
// Original style, 1000 points from 0 to 1: precision over recall is linear between detections, with a straight end at (1, 0); the
// others are linear in confidence; their means over the classes are smoothed by 101 points (spec 9.4). One difference: a class
// without detections counts as 0 in the mean of precision over recall, as it does in mAP; the original's plot leaves it out.
//
// COCO style, 1001 points 0, 0.001, ..., 1: precision over recall has COCO's steps and is 0 beyond the last recall, so that AP50 is
// the mean of every tenth point; the others count detections with score >= confidence, and the first maximum of the mean F1 is the
// operating point of CocoReport. Crowds and detections beyond 100 are left out; nothing is smoothed.
//
// Precision is 1 above the most confident detection of a class, and 0 for a class without any.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

struct DetectionCurves {
  struct Row {
    int64_t class_id = -1;                      // category id in COCO data; -1: the mean
    double ap50 = 0;                            // as the style reports it
    std::vector<double> precision_at_recall;    // over x as recall
    std::vector<double> precision, recall, f1;  // over x as confidence
  };
  std::vector<double> x;
  std::vector<Row> classes;  // ascending ids
  Row mean;                  // empty without classes
};

// Unweighted means, point by point.
DetectionCurves::Row mean_row(std::span<const DetectionCurves::Row> rows);

}  // namespace tessera
