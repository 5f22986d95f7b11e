// The fixed batch of the golden training step and trajectories: three images with 0, 1 and many objects.
#pragma once

#include "data/sample.h"
#include "tests/support/golden.h"

namespace tessera::testing {

inline Batch golden_batch(const TensorMap& golden) {
  Batch batch;
  const auto image = golden.at("batch_idx").to_vector<int32_t>();
  const auto cls = golden.at("cls").to_vector<int32_t>();
  const auto boxes = golden.at("bboxes").to_vector<float>();
  for (size_t i = 0; i < image.size(); ++i) {
    batch.target_image.push_back(image[i]);
    batch.targets.push_back({cls[i], {boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]}});
  }
  batch.masks = golden.at("masks");
  return batch;
}

}  // namespace tessera::testing
