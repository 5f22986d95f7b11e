// Predictions as text: the JSON object of an image (docs/cli.md) and the lines of a label file.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "yolo/eval/predictor.h"

namespace tessera {

// {"image","width","height","speed_ms","detections":[{"class","name","confidence","box","rle":{"size","counts"},"rings"}]} in
// pixels of the original image. Box coordinates are rounded to 1/1000 pixel, confidences to six digits after the point.
std::string prediction_json(const std::string& image, const Prediction& prediction, std::span<const std::string> names);

// One line for each object with a polygon: "class x1 y1 x2 y2 ... [confidence]", fractions of the image, %g (spec 4.5). Needs
// PredictorOptions::polygons.
std::string prediction_labels(const Prediction& prediction, bool confidence);

}  // namespace tessera
