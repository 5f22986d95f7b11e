#include "yolo/eval/prediction_text.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

namespace tessera {

std::string prediction_json(const std::string& image, const Prediction& p, std::span<const std::string> names) {
  using Json = nlohmann::ordered_json;
  const auto decimals = [](double v, double scale) { return std::round(v * scale) / scale; };
  Json root = {{"image", image}, {"width", p.width}, {"height", p.height}};
  root["speed_ms"] = {{"preprocess", decimals(p.preprocess_ms, 1e3)},
                      {"inference", decimals(p.inference_ms, 1e3)},
                      {"postprocess", decimals(p.postprocess_ms, 1e3)}};
  Json& list = root["detections"] = Json::array();
  for (const ObjectPrediction& o : p.objects) {
    Json box = Json::array(), rings = Json::array();
    for (const float v : {o.box.x1, o.box.y1, o.box.x2, o.box.y2}) box.push_back(decimals(double(v), 1e3));
    for (const Polygon& ring : o.rings) {
      Json& points = rings.emplace_back(Json::array());
      for (const Point& point : ring) points.push_back({decimals(double(point.x), 1e3), decimals(double(point.y), 1e3)});
    }
    const Rle rle = o.mask.rle();
    list.push_back({{"class", o.class_id},
                    {"name", size_t(o.class_id) < names.size() ? names[size_t(o.class_id)] : std::to_string(o.class_id)},
                    {"confidence", decimals(double(o.confidence), 1e6)},
                    {"box", std::move(box)},
                    {"rle", {{"size", {rle.height, rle.width}}, {"counts", rle_to_string(rle)}}},
                    {"rings", std::move(rings)}});
  }
  return root.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string label_line(int32_t class_id, const Polygon& polygon, int height, int width, std::optional<float> confidence) {
  if (polygon.empty()) return {};
  std::string text = std::to_string(class_id);
  for (const Point& point : polygon)
    fmt::format_to(std::back_inserter(text), " {:g} {:g}", point.x / float(width), point.y / float(height));
  if (confidence) text += fmt::format(" {:g}", *confidence);
  return text + '\n';
}

std::string prediction_labels(const Prediction& p, bool confidence) {
  std::string text;
  for (const ObjectPrediction& o : p.objects) {
    text += label_line(o.class_id, o.polygon, p.height, p.width, confidence ? std::optional(o.confidence) : std::nullopt);
  }
  return text;
}

std::string UniqueStems::next(const std::filesystem::path& image) {
  const std::string stem = image.stem().string();
  std::string name = stem;
  for (int n = 2; !given_.insert(name).second; ++n) name = fmt::format("{}_{}", stem, n);
  return name;
}

}  // namespace tessera
