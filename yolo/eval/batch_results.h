// From the detections in a part of a batch to what scoring needs of each image: matches with the labels at network size (the
// original's style), truths and masks at the original size (COCO's style, predictions.json).
#pragma once

#include <vector>

#include "data/dataset.h"
#include "yolo/eval/detections.h"
#include "yolo/eval/image_result.h"
#include "yolo/eval/masks.h"

namespace tessera {

// How an image of a validation batch was letterboxed.
ResultGeometry result_geometry(const Batch& batch, int64_t image);

// Neighbouring images of a batch that went through the network together. Images of `found`, and of results, are counted from the
// first image of the part.
struct BatchPart {
  const Batch& batch;
  int64_t first;  // image of the batch
  const BatchDetections& found;

  int64_t of_batch(int64_t image) const { return first + image; }
  ResultGeometry geometry(int64_t image) const { return result_geometry(batch, of_batch(image)); }
};

// Masks that are computed at the original size; others stay empty.
enum class OriginalMasks {
  kNone,
  kCompared,  // those that COCO's figures depend on
  kAll,
};

// The images of the part, in order, on all threads; boxes and scores are those of part.found. kOriginal matches them with the
// labels, kCoco adds the truths of `data`; with masks other than kNone ImageResult::scored is filled.
std::vector<ImageResult> image_results(const BatchPart& part, const SegDataset& data, MapStyle style, OriginalMasks masks);

}  // namespace tessera
