#include "yolo/train/results_plot.h"

#include <functional>
#include <string>

#include "yolo/report/charts.h"

namespace tessera {

void draw_results(const std::filesystem::path& folder, const std::vector<EpochRow>& rows) {
  if (rows.empty()) return;
  struct Column {
    const char* title;
    bool validation;
    std::function<double(const EpochRow&)> value;
  };
  const Column columns[] = {
      {"train/box_loss", false, [](const EpochRow& r) { return r.train.box; }},
      {"train/seg_loss", false, [](const EpochRow& r) { return r.train.seg; }},
      {"train/cls_loss", false, [](const EpochRow& r) { return r.train.cls; }},
      {"train/dfl_loss", false, [](const EpochRow& r) { return r.train.dfl; }},
      {"metrics/precision(B)", true, [](const EpochRow& r) { return r.box.precision; }},
      {"metrics/recall(B)", true, [](const EpochRow& r) { return r.box.recall; }},
      {"metrics/precision(M)", true, [](const EpochRow& r) { return r.mask.precision; }},
      {"metrics/recall(M)", true, [](const EpochRow& r) { return r.mask.recall; }},
      {"val/box_loss", true, [](const EpochRow& r) { return r.val.box; }},
      {"val/seg_loss", true, [](const EpochRow& r) { return r.val.seg; }},
      {"val/cls_loss", true, [](const EpochRow& r) { return r.val.cls; }},
      {"val/dfl_loss", true, [](const EpochRow& r) { return r.val.dfl; }},
      {"metrics/mAP50(B)", true, [](const EpochRow& r) { return r.box.map50; }},
      {"metrics/mAP50-95(B)", true, [](const EpochRow& r) { return r.box.map; }},
      {"metrics/mAP50(M)", true, [](const EpochRow& r) { return r.mask.map50; }},
      {"metrics/mAP50-95(M)", true, [](const EpochRow& r) { return r.mask.map; }},
  };
  std::vector<Curve> curves;
  for (const Column& c : columns) {
    Curve& curve = curves.emplace_back();
    curve.title = c.title;
    for (const EpochRow& r : rows) {
      if (c.validation && !r.validated) continue;
      curve.x.push_back(double(r.epoch));
      curve.y.push_back(c.value(r));
    }
  }
  draw_curve_grid(folder / "results.png", curves, 8);
}

}  // namespace tessera
