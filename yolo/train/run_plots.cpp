#include "yolo/train/run_plots.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <functional>

#include "tensor/base/file.h"
#include "yolo/eval/batch_results.h"
#include "yolo/eval/masks.h"
#include "yolo/report/charts.h"

namespace tessera {

namespace {

constexpr float kShownConfidence = 0.25f;

// Of each image those that `shows` takes, by falling score.
std::vector<std::vector<PredictedObject>> shown_objects(const Batch& batch, const BatchDetections& found,
                                                        const std::function<bool(float score)>& shows) {
  const int height = int(batch.images.size(1)), width = int(batch.images.size(2));
  std::vector<std::vector<PredictedObject>> objects(found.images.size());
  std::vector<MaskItem> items;
  std::vector<PredictedObject*> places;
  for (size_t image = 0; image < objects.size(); ++image) {
    const Detections& d = found.images[image];
    size_t shown = 0;
    while (shown < d.scores.size() && shows(d.scores[shown])) ++shown;
    objects[image].resize(shown);
    for (size_t i = 0; i < shown; ++i) {
      PredictedObject& object = objects[image][i];
      object.class_id = d.classes[i];
      object.score = d.scores[i];
      object.box = d.boxes[i];
      items.push_back(mask_item(found, int64_t(image), int64_t(i), height, width, MaskSize::kNetwork));
      places.push_back(&object);
    }
  }
  for_each_mask(found, items, [&](int64_t i, const MaskView& mask) {
    places[size_t(i)]->mask = {mask.where, mask.pixels()};
  });
  return objects;
}

}  // namespace

ValidationPlots::ValidationPlots(std::filesystem::path folder, std::vector<std::string> class_names, double confidence)
    : folder_(std::move(folder)), class_names_(std::move(class_names)), confusion_(int32_t(class_names_.size()), confidence) {}

void ValidationPlots::listen(EvaluatorHooks& hooks) {
  hooks.part_done.push_back([this](int64_t index, const Batch& batch, int64_t first, const BatchDetections& found) {
    add(index, batch, first, found);
  });
  hooks.curves = [this](const DetectionCurves& box, const DetectionCurves& mask) {
    draw_curves("Box", box);
    draw_curves("Mask", mask);
  };
}

void ValidationPlots::add(int64_t batch_index, const Batch& batch, int64_t first, const BatchDetections& found) {
  const float height = float(batch.images.size(1)), width = float(batch.images.size(2));
  for (size_t i = 0; i < found.images.size(); ++i) {
    // In pixels of the original image, which cut off what lies in the padding (spec 9.1).
    const ResultGeometry geometry = result_geometry(batch, first + int64_t(i));
    std::vector<BoxXyxy> labels, boxes;
    std::vector<int32_t> classes;
    for (size_t t = 0; t < batch.targets.size(); ++t) {
      if (batch.target_image[t] != first + int64_t(i)) continue;
      const auto& b = batch.targets[t].box;
      const BoxXyxy box{(b[0] - b[2] / 2) * width, (b[1] - b[3] / 2) * height, (b[0] + b[2] / 2) * width,
                        (b[1] + b[3] / 2) * height};
      labels.push_back(scale_box(box, geometry));
      classes.push_back(batch.targets[t].class_id);
    }
    const Detections& d = found.images[i];
    for (const BoxXyxy& box : d.boxes) boxes.push_back(scale_box(box, geometry));
    confusion_.add(labels, classes, boxes, d.classes, d.scores);
  }
  if (batch_index >= kPlottedBatches || folder_.empty()) return;
  if (first == 0) shown_.clear();
  for (auto& objects : shown_objects(batch, found, [](float score) { return score > kShownConfidence; })) shown_.push_back(std::move(objects));
  if (int64_t(shown_.size()) < batch.size()) return;
  draw_label_batch(folder_ / fmt::format("val_batch{}_labels.png", batch_index), batch, class_names_);
  draw_prediction_batch(folder_ / fmt::format("val_batch{}_pred.png", batch_index), batch, shown_, class_names_);
}

void ValidationPlots::finish(Communicator& ranks) {
  if (!ranks.alone()) {
    // One after the other: all at once would be as many as there are ranks, on each of them.
    std::vector<uint32_t> counts = confusion_.counts();
    for (int r = 1; r < ranks.size(); ++r) {
      if (r == ranks.rank()) counts = confusion_.counts();
      ranks.broadcast(counts.data(), int64_t(counts.size() * sizeof(uint32_t)), r, "confusion matrices");
      if (ranks.leader()) confusion_.add(counts);
    }
    if (!ranks.leader()) return;
  }
#ifdef __GLIBC__
  ::malloc_trim(0);  // the curves of thousands of classes are small pieces, which would be kept beside the drawing
#endif
  const auto count = [&](size_t predicted, size_t actual) { return double(confusion_.at(int32_t(predicted), int32_t(actual))); };
  const auto fraction = [&](size_t predicted, size_t actual) { return confusion_.normalized(int32_t(predicted), int32_t(actual)); };
  draw_confusion_matrix(folder_ / "confusion_matrix.png", class_names_, count, false);
  draw_confusion_matrix(folder_ / "confusion_matrix_normalized.png", class_names_, fraction, true);
}

int64_t report_bytes(int64_t classes, int64_t with_objects, bool plots) {
  constexpr int64_t kCurve = 1001 * sizeof(double), kRow = 4 * kCurve;  // DetectionCurves::Row
  const int64_t figures = 2 * kCurve * classes;                         // counts or curves over confidence, whatever the style
  if (!plots) return figures;
  const int64_t matrix = (classes + 1) * (classes + 1) * int64_t(sizeof(uint32_t));
  const int64_t curves = figures + (2 * kRow + kCurve) * with_objects;  // boxes' beside masks' and what they are made of
  return matrix + std::max(curves, confusion_drawing_bytes(classes));
}

void ValidationPlots::draw_curves(const std::string& kind, const DetectionCurves& curves) const {
  using Row = DetectionCurves::Row;
  struct Chart {
    const char *name, *x_label, *y_label;
    std::vector<double> Row::*values;
  };
  constexpr Chart kCharts[] = {{"PR", "Recall", "Precision", &Row::precision_at_recall},
                               {"F1", "Confidence", "F1", &Row::f1},
                               {"P", "Confidence", "Precision", &Row::precision},
                               {"R", "Confidence", "Recall", &Row::recall}};
  for (const Chart& chart : kCharts) {
    const bool over_recall = chart.values == &Row::precision_at_recall;
    ClassCurves drawn;
    drawn.title = fmt::format("{}: {} over {} at IoU 0.50", kind, chart.y_label, chart.x_label);
    drawn.x_label = chart.x_label;
    drawn.y_label = chart.y_label;
    drawn.x = curves.x;
    for (const Row& row : curves.classes) {
      const std::string& name = class_names_[size_t(row.class_id)];
      drawn.classes.push_back({over_recall ? fmt::format("{:.3f}  {}", row.ap50, name) : name, {}, row.*chart.values});
    }
    const std::vector<double>& mean = drawn.mean.y = curves.mean.*chart.values;
    if (over_recall) {
      drawn.mean.title = fmt::format("{:.3f}  all classes: mAP50", curves.mean.ap50);
    } else if (!mean.empty()) {
      const size_t best = size_t(std::max_element(mean.begin(), mean.end()) - mean.begin());
      drawn.mean.title = fmt::format("all classes: {:.2f} at {:.3f}", mean[best], curves.x[best]);
    }
    draw_class_curves(folder_ / fmt::format("{}{}_curve.png", kind, chart.name), drawn);
  }
}

FailingImages::FailingImages(std::filesystem::path folder, const SegDataset& data, bool plot)
    : folder_(std::move(folder)), data_(data), plot_(plot) {}

void FailingImages::listen(EvaluatorHooks& hooks) {
  hooks.images = [this](const ImageScores& scores) { return write(scores); };
  hooks.again = [this](const Batch& batch, const BatchDetections& found) {
    const ImageScore& s = worst_[shown_.size()];
    const double least = confidence_;
    auto objects = shown_objects(batch, found, [least](float score) { return double(score) >= least; });
    std::string text = fmt::format("{} missed, {} wrong", s.mask.fn, s.mask.fp);
    if (s.mask.tp > 0) text += fmt::format(", IoU {:.2f}", s.mask_iou);
    shown_.push_back({batch, std::move(objects.front()), std::filesystem::path(data_.image(s.index).file).filename().string(), text});
  };
}

std::vector<int64_t> FailingImages::write(const ImageScores& scores) {
  write_file_atomic(folder_ / "images.csv", to_csv(scores, [&](int64_t index) { return data_.image(index).file; }));
  std::error_code ignored;
  std::filesystem::remove(folder_ / "worst_images.png", ignored);  // of an earlier validation of this run
  if (!plot_) return {};
  confidence_ = scores.confidence;
  std::vector<int64_t> indices;
  for (const size_t i : scores.worst_first()) {
    const ImageScore& s = scores.images[i];
    if (worst_.size() == kWorstImages || s.mask.errors() == 0) break;
    worst_.push_back(s);
    indices.push_back(s.index);
  }
  return indices;
}

void FailingImages::finish() const {
  if (!shown_.empty()) draw_comparisons(folder_ / "worst_images.png", shown_, data_.names());
}

void draw_dataset_labels(const std::filesystem::path& folder, const SegDataset& data) {
  std::vector<std::array<float, 4>> boxes;
  for (int64_t i = 0; i < data.size(); ++i) {
    for (const LabelObject& object : data.image(i).objects) boxes.push_back(object.box);
  }
  draw_label_statistics(folder / "labels.png", data.names(), data.objects_by_class(), boxes);
}

}  // namespace tessera
