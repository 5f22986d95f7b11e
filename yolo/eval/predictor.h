// From an image to its objects: letterbox, network, suppression, masks, and everything back in pixels of the original image.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"
#include "data/transforms/letterbox.h"
#include "yolo/eval/masks.h"
#include "yolo/model.h"
#include "yolo/network.h"

namespace tessera {

struct PredictorOptions {
  int imgsz = 640;               // multiple of 32
  Size fixed{};                  // when not 0 x 0: every image is padded to it; for networks that take no other
  float confidence = 0.25f;      // scores must be greater
  double iou = 0.7;              // overlaps must be greater to suppress
  int64_t max_detections = 300;  // an image
  bool agnostic = false;         // classes suppress each other
  std::vector<int32_t> classes{};  // when not empty: only these
  bool retina_masks = false;     // masks computed at original size instead of enlarged at network size (spec 4.3)
  bool rect = true;              // pad only to the next multiple of 32 instead of to a square (spec 3.3)
  bool polygons = false;         // fill ObjectPrediction::polygon
};

// All in pixels of the original image.
struct ObjectPrediction {
  int32_t class_id = 0;
  float confidence = 0;
  BoxXyxy box;                 // clipped to the image
  MaskPatch mask;              // of the image's size
  std::vector<Polygon> rings;  // outer contours of `mask`, all parts
  Polygon polygon;             // the original's single polygon: parts joined, traced at network size (spec 4.4)
};

struct Prediction {
  int height = 0, width = 0;              // of the original image
  std::vector<ObjectPrediction> objects;  // in falling confidence
  double preprocess_ms = 0, inference_ms = 0, postprocess_ms = 0;
};

class Predictor {
 public:
  // Puts the model into evaluation mode, folded, until the predictor goes; it must not be trained meanwhile. Error(kUsage) for an
  // imgsz that is not a multiple of the model's stride, for classes that it does not have, for names of another count, and for a
  // confidence or IoU outside [0, 1].
  Predictor(YoloSeg& model, std::vector<std::string> names, PredictorOptions options = {});
  // Any other network, which must outlive the predictor.
  Predictor(SegNetwork& network, std::vector<std::string> names, PredictorOptions options = {});
  ~Predictor();
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;

  Prediction run(const Image& image);
  // The same results; images that come to the same network size are run through the network together.
  std::vector<Prediction> run(std::span<const Image> images);

  const std::vector<std::string>& names() const { return names_; }
  const PredictorOptions& options() const { return options_; }
  LetterboxPlan plan(const Image& image) const;

 private:
  struct OfModel;
  Predictor(std::unique_ptr<OfModel> of_model, std::vector<std::string> names, PredictorOptions options);
  void check() const;

  std::unique_ptr<OfModel> of_model_;  // when the network is a model's
  SegNetwork& network_;
  std::vector<std::string> names_;
  PredictorOptions options_;
};

// Where a network input comes from.
struct InputImage {
  LetterboxPlan plan;
  int height = 0, width = 0;  // of the original image
};

// Detections of network inputs back in the images that they were letterboxed from, one list for each. Those whose mask is empty at the
// size where it was computed are dropped (spec 4.3).
std::vector<std::vector<ObjectPrediction>> original_objects(const BatchDetections& found, std::span<const InputImage> inputs,
                                                            const PredictorOptions& options);

}  // namespace tessera
