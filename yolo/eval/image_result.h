// What one image contributes to a validation, and its way to the rank that scores.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/rle.h"
#include "yolo/eval/detections.h"

namespace tessera {

// Whose rules decide which detection is right and how AP is interpolated: COCO's (coco_eval.h) or the original's (original_ap.h).
enum class MapStyle { kCoco, kOriginal };

// One object in pixels of the original image.
struct ScoredTruth {
  int32_t class_id = 0;
  BoxLtwh box{};
  Rle mask;
};

// One detection in pixels of the original image.
struct ScoredDetection {
  int64_t image = 0;  // index in the data set
  int32_t class_id = 0;
  float score = 0;
  BoxXyxy box;
  Rle mask;  // of the size of the original image; only when masks were asked for
  bool compared = false;  // the figures depend on its mask
};

struct ImageResult {
  int64_t index = 0;                      // in the data set
  Detections detections;                  // network-input pixels
  std::vector<uint16_t> box_tp, mask_tp;  // original style
  std::vector<float> mask_iou;            // original style: with the object that a detection's mask found at IoU 0.50
  std::vector<int32_t> label_classes;
  std::vector<ScoredTruth> truths;        // COCO's style
  std::vector<ScoredDetection> scored;    // by falling score; original-image pixels, when the style or a hook wants them
};

// All that scoring needs, which is all but boxes in network-input pixels and anchors.
std::string pack(const std::vector<ImageResult>& results);
std::vector<ImageResult> unpack(std::string_view bytes);

// Of all ranks, in the order of the data set: the first image of each rank, the second of each, ...
std::vector<ImageResult> interleaved(std::vector<std::vector<ImageResult>> parts);

}  // namespace tessera
