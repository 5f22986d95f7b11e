#include "yolo/metrics_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace tessera {

namespace {

using Json = nlohmann::ordered_json;

Json set_json(const MetricSet& m) {
  Json j = {{"map", m.map}, {"map50", m.map50}, {"map75", m.map75}};
  if (m.maps >= 0) j["maps"] = m.maps;
  if (m.mapm >= 0) j["mapm"] = m.mapm;
  if (m.mapl >= 0) j["mapl"] = m.mapl;
  j["precision"] = m.precision;
  j["recall"] = m.recall;
  j["f1"] = m.f1;
  return j;
}

}  // namespace

Json to_json(const ValidationResult& r) {
  Json classes = Json::array();
  for (const ClassMetrics& c : r.classes) {
    classes.push_back({{"name", c.name},
                       {"images", c.images},
                       {"instances", c.instances},
                       {"box", {{"map", c.box_map}, {"map50", c.box_map50}}},
                       {"mask", {{"map", c.mask_map}, {"map50", c.mask_map50}}}});
  }
  return {{"map_style", r.map_style},
          {"images", r.images},
          {"instances", r.instances},
          {"box", set_json(r.box)},
          {"mask", set_json(r.mask)},
          {"classes", classes},
          {"speed_ms",
           {{"load", r.speed.load},
            {"preprocess", r.speed.preprocess},
            {"inference", r.speed.inference},
            {"loss", r.speed.loss},
            {"postprocess", r.speed.postprocess},
            {"evaluate", r.speed.evaluate}}}};
}

std::string format_table(const ValidationResult& r, bool per_class) {
  std::string text = fmt::format("{:>22}{:>9}{:>11}{:>11}{:>9}{:>9}{:>11}{:>11}{:>9}{:>9}{:>11}\n", "Class", "Images", "Instances",
                                 "Box(P", "R", "mAP50", "mAP50-95)", "Mask(P", "R", "mAP50", "mAP50-95)");
  text += fmt::format("{:>22}{:>9}{:>11}{:>11.3g}{:>9.3g}{:>9.3g}{:>11.3g}{:>11.3g}{:>9.3g}{:>9.3g}{:>11.3g}\n", "all", r.images,
                      r.instances, r.box.precision, r.box.recall, r.box.map50, r.box.map, r.mask.precision, r.mask.recall,
                      r.mask.map50, r.mask.map);
  if (!per_class) return text;
  for (const ClassMetrics& c : r.classes) {
    text += fmt::format("{:>22}{:>9}{:>11}{:>11}{:>9}{:>9.3g}{:>11.3g}{:>11}{:>9}{:>9.3g}{:>11.3g}\n", c.name, c.images, c.instances,
                        "", "", c.box_map50, c.box_map, "", "", c.mask_map50, c.mask_map);
  }
  return text;
}

}  // namespace tessera
