// Task-aligned assignment of anchors to ground truths (spec 7.2; Feng et al. 2021, "TOOD"): an anchor is good for an object when it
// lies in its box, gives its class a high score and predicts a box that overlaps it well: metric = score^0.5 * CIoU^6. The ten best
// anchors of each object learn it.
//
// Where the original leaves ties to its top-k, here the anchor with the lowest index is chosen; among ground truths that overlap an
// anchor equally, as there, the lowest index.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "yolo/train/targets.h"

namespace tessera {

struct AssignerConfig {
  int64_t topk = 10;
  float alpha = 0.5f;  // power of the score
  float beta = 6.0f;   // power of the overlap
};

// An anchor that learns an object.
struct Positive {
  int32_t image = 0;
  int32_t anchor = 0;
  int32_t target = 0;  // column of PaddedTargets
  float score = 0;     // target score of the object's class; 0 is possible: such an anchor counts in the mask term only
};

// What the assigner asks the network; called from several threads, for anchors inside valid boxes only.
struct Predictions {
  std::function<float(int64_t image, int64_t anchor, int32_t class_id)> score;  // sigma(class logit)
  std::function<std::array<float, 4>(int64_t image, int64_t anchor)> box;       // x1 y1 x2 y2, pixels
};

// Positives ordered by (image, anchor). Images are worked on in parallel; the result does not depend on the number of threads.
std::vector<Positive> assign_targets(const PaddedTargets& targets, const Anchors& anchors, const Predictions& predictions,
                                     const AssignerConfig& config = {});

// Complete IoU of corner boxes in f32, eps 1e-7 (spec 7.4), with the arctangents of both boxes' w / h given.
float ciou(const std::array<float, 4>& a, const std::array<float, 4>& b, float atan_a, float atan_b);
float box_angle(const std::array<float, 4>& box);  // atan(w / (h + eps))

}  // namespace tessera
