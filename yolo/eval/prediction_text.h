// Predictions as text: the JSON object of an image (docs/cli.md) and the lines of a label file.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "yolo/eval/predictor.h"

namespace tessera {

// {"image","width","height","speed_ms","detections":[{"class","name","confidence","box","rle":{"size","counts"},"rings"}]} in
// pixels of the original image. Box coordinates are rounded to 1/1000 pixel, confidences to six digits after the point.
std::string prediction_json(const std::string& image, const Prediction& prediction, std::span<const std::string> names);

// "class x1 y1 x2 y2 ... [confidence]" and a newline: a polygon of image pixels as fractions of the image, %g (spec 4.5). Nothing
// for an empty one.
std::string label_line(int32_t class_id, const Polygon& polygon, int height, int width, std::optional<float> confidence);

// The lines of all objects. Needs PredictorOptions::polygons.
std::string prediction_labels(const Prediction& prediction, bool confidence);

// What the files of images are called: the image's name without its ending, and for further images of one name in other folders
// <name>_2, <name>_3, ...
class UniqueStems {
 public:
  std::string next(const std::filesystem::path& image);

 private:
  std::set<std::string> given_;
};

}  // namespace tessera
