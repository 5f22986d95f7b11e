// What an image contributes to a validation, on its way to the rank that scores.
#include "yolo/eval/image_result.h"

#include <doctest/doctest.h>

using namespace tessera;

TEST_CASE("image results: every field that scoring needs arrives, of images with much and with nothing") {
  ImageResult full;
  full.index = 7;
  full.detections.scores = {0.9f, 0.25f};
  full.detections.classes = {2, 0};
  full.box_tp = {1023, 1};
  full.mask_tp = {3, 0};
  full.mask_iou = {0.75f, 0.0f};
  full.label_classes = {2, 2, 1};
  full.truths.push_back({2, {1, 2, 3, 4}, Rle{2, 3, {1, 2, 3}}});
  full.truths.push_back({1, {5, 6, 7, 8}, Rle{}});
  full.scored.push_back({7, 2, 0.9f, {1, 2, 3, 4}, Rle{2, 3, {0, 6}}, true});
  full.scored.push_back({7, 0, 0.25f, {5, 6, 7, 8}, Rle{}, false});
  ImageResult empty;
  empty.index = 8;

  const std::string bytes = pack({full, empty});
  const std::vector<ImageResult> results = unpack(bytes);
  REQUIRE(results.size() == 2);
  const ImageResult& r = results[0];
  CHECK(r.index == 7);
  CHECK(r.detections.scores == full.detections.scores);
  CHECK(r.detections.classes == full.detections.classes);
  CHECK(r.box_tp == full.box_tp);
  CHECK(r.mask_tp == full.mask_tp);
  CHECK(r.mask_iou == full.mask_iou);
  CHECK(r.label_classes == full.label_classes);
  REQUIRE(r.truths.size() == 2);
  REQUIRE(r.scored.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(r.truths[i].class_id == full.truths[i].class_id);
    CHECK(r.truths[i].box == full.truths[i].box);
    CHECK(r.truths[i].mask == full.truths[i].mask);
    CHECK(r.scored[i].image == 7);
    CHECK(r.scored[i].class_id == full.scored[i].class_id);
    CHECK(r.scored[i].score == full.scored[i].score);
    CHECK(r.scored[i].box == full.scored[i].box);
    CHECK(r.scored[i].mask == full.scored[i].mask);
    CHECK(r.scored[i].compared == full.scored[i].compared);
  }
  CHECK(results[1].index == 8);
  CHECK(results[1].scored.empty());
  CHECK_THROWS(unpack(std::string_view(bytes).substr(0, bytes.size() - 1)));
}
