#include "yolo/eval/validation_labels.h"

#include <doctest/doctest.h>

#include "yolo/eval/prediction_text.h"

using namespace tessera;

TEST_CASE("labels of a validation lie in the image, not in its padding") {
  // An image of 100 x 50 pixels, halved and put at (7, 3) of a network input of 64 x 32; the second of its batch.
  Batch batch;
  batch.images = Tensor::zeros({2, 32, 64, 3}, DType::kU8);
  batch.geometry = {{}, {50, 100, 0.5, 0.5, 7, 3}};
  BatchDetections found;
  found.prototypes = Tensor::from_vector(std::vector<float>(8 * 16, 1), {1, 8, 16, 1});
  Detections& d = found.images.emplace_back();
  d.boxes = {{17, 8, 37, 18}, {0, 0, 64, 32}, {30, 10, 40, 20}};
  d.scores = {0.75f, 0.5f, 0.25f};
  d.classes = {3, 1, 2};
  d.anchors = {0, 1, 2};
  found.coefficients = Tensor::from_vector(std::vector<float>{1, 1, -1}, {1, 3, 1});
  // The mask is the box: pixels 17 to 36 and 8 to 17. That of the second reaches over the image, the third's is empty.
  const std::string first = "3 0.2 0.2 0.2 0.56 0.58 0.56 0.58 0.2", second = "1 0 0 0 1 1 1 1 0";
  CHECK(validation_labels(batch, 1, found, false) == std::vector<std::string>{first + "\n" + second + "\n"});
  CHECK(validation_labels(batch, 1, found, true) == std::vector<std::string>{first + " 0.75\n" + second + " 0.5\n"});
  found.images[0] = {};
  CHECK(validation_labels(batch, 1, found, true) == std::vector<std::string>{""});
}

TEST_CASE("files of images with one name get names of their own") {
  UniqueStems stems;
  CHECK(stems.next("a/x.jpg") == "x");
  CHECK(stems.next("b/x.png") == "x_2");
  CHECK(stems.next("c/x.jpg") == "x_3");
  CHECK(stems.next("x_2.jpg") == "x_2_2");
  CHECK(stems.next("y.tar.jpg") == "y.tar");
}
