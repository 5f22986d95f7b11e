// Images of a batch as the network sees them, annotated: what it is told (labels after augmentation) and what it answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/polygon.h"
#include "data/sample.h"
#include "yolo/report/annotate.h"

namespace tessera {

// At most 16 images of the batch on one sheet with their file names, boxes, class names and masks; the masks at the resolution of
// the loss. Written atomically as PNG. Error(kIo) when the disk refuses.
void draw_label_batch(const std::filesystem::path& file, const Batch& batch, const std::vector<std::string>& class_names);

// A detection in network-input pixels.
struct PredictedObject {
  int32_t class_id = 0;
  float score = 0;
  BoxXyxy box;
  MaskArea mask;
};

// The same sheet with detections, in falling score, those above 0.25 only. objects: one list for each image of the batch.
void draw_prediction_batch(const std::filesystem::path& file, const Batch& batch,
                           const std::vector<std::vector<PredictedObject>>& objects, const std::vector<std::string>& class_names);

// One image with what it should show and what was found.
struct ImageComparison {
  Batch batch;  // of this image alone
  std::vector<PredictedObject> objects;
  std::string caption, found_caption;  // of the two images
};

// Labels and detections side by side, four images a row. All objects are drawn.
void draw_comparisons(const std::filesystem::path& file, const std::vector<ImageComparison>& images,
                      const std::vector<std::string>& class_names);

}  // namespace tessera
