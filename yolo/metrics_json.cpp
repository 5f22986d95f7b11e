#include "yolo/metrics_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tensor/base/one_line.h"

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

Json class_json(const ClassFigures& c) {
  return {{"map", c.map}, {"map50", c.map50}, {"precision", c.precision}, {"recall", c.recall}, {"f1", c.f1}};
}

std::string table_row(const std::string& name, int64_t images, int64_t instances, const auto& box, const auto& mask) {
  return fmt::format("{:>22}{:>9}{:>11}{:>11.3g}{:>9.3g}{:>9.3g}{:>11.3g}{:>11.3g}{:>9.3g}{:>9.3g}{:>11.3g}\n", one_line(name),
                     images, instances, box.precision, box.recall, box.map50, box.map, mask.precision, mask.recall, mask.map50,
                     mask.map);
}

}  // namespace

Json to_json(const ValidationResult& r) {
  Json classes = Json::array();
  for (const ClassMetrics& c : r.classes) {
    classes.push_back({{"name", c.name},
                       {"images", c.images},
                       {"instances", c.instances},
                       {"box", class_json(c.box)},
                       {"mask", class_json(c.mask)}});
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
  text += table_row("all", r.images, r.instances, r.box, r.mask);
  if (!per_class) return text;
  for (const ClassMetrics& c : r.classes) text += table_row(c.name, c.images, c.instances, c.box, c.mask);
  return text;
}

}  // namespace tessera
