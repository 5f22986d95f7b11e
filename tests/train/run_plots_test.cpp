// What a validation leaves besides figures.
#include "yolo/train/run_plots.h"

#include <doctest/doctest.h>

namespace tessera {
namespace {

// An image of 32 x 32 in the middle of an input of 64 x 64; its object ends at the right edge.
TEST_CASE("the confusion matrix compares boxes within the image, as the figures do, and not in its padding") {
  Batch batch;
  batch.images = Tensor::zeros({1, 64, 64, 3}, DType::kU8);
  batch.geometry = {
      {.original_height = 32, .original_width = 32, .ratio_height = 1, .ratio_width = 1, .pad_left = 16, .pad_top = 16}};
  batch.targets = {{.class_id = 1, .box = {42.0f / 64, 0.5f, 12.0f / 64, 0.5f}}};
  batch.target_image = {0};
  BatchDetections found;
  Detections& d = found.images.emplace_back();
  d.boxes = {{36, 16, 64, 48}};  // the same but for what lies in the padding: 0.43 of their union there
  d.scores = {0.9f};
  d.classes = {1};
  ValidationPlots plots({}, {"circle", "square"}, 0.001);
  EvaluatorHooks hooks;
  plots.listen(hooks);
  hooks.part_done.front()(0, batch, 0, found);
  CHECK(plots.confusion().at(1, 1) == 1);
  CHECK(plots.confusion().at(1, 2) == 0);
  CHECK(plots.confusion().at(2, 1) == 0);
}

}  // namespace
}  // namespace tessera
