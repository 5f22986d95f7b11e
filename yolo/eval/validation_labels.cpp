#include "yolo/eval/validation_labels.h"

#include <algorithm>

#include "tensor/base/file.h"
#include "tensor/base/parallel.h"
#include "yolo/eval/masks.h"
#include "yolo/eval/prediction_text.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

void to_image(Polygon& polygon, const ImageGeometry& g) {
  const auto back = [](float v, int pad, double ratio, int limit) {
    return std::clamp((v - float(pad)) / float(ratio), 0.0f, float(limit));
  };
  for (Point& p : polygon) {
    p = {back(p.x, g.pad_left, g.ratio_width, g.original_width), back(p.y, g.pad_top, g.ratio_height, g.original_height)};
  }
}

}  // namespace

std::vector<std::string> validation_labels(const Batch& batch, int64_t first, const BatchDetections& found, bool confidence) {
  const int height = int(batch.images.size(1)), width = int(batch.images.size(2));
  struct Place {
    size_t image, i;
  };
  std::vector<MaskItem> items;
  std::vector<Place> places;
  for (size_t image = 0; image < found.images.size(); ++image) {
    for (size_t i = 0; i < size_t(found.images[image].size()); ++i) {
      items.push_back(mask_item(found, int64_t(image), int64_t(i), height, width, MaskSize::kNative));
      places.push_back({image, i});
    }
  }
  std::vector<std::string> lines(items.size()), texts(found.images.size());
  for_each_mask(found, items, [&](int64_t k, const MaskView& mask) {
    const auto [image, i] = places[size_t(k)];
    const Detections& d = found.images[image];
    const ImageGeometry& g = batch.geometry[size_t(first) + image];
    Polygon polygon = mask_polygon(mask);
    to_image(polygon, g);
    lines[size_t(k)] = label_line(d.classes[i], polygon, g.original_height, g.original_width,
                                  confidence ? std::optional(d.scores[i]) : std::nullopt);
  });
  for (size_t k = 0; k < lines.size(); ++k) texts[places[k].image] += lines[k];
  return texts;
}

ValidationLabels::ValidationLabels(fs::path folder, const SegDataset& data, bool confidence)
    : folder_(std::move(folder)), confidence_(confidence) {
  std::error_code failed;
  fs::create_directories(folder_, failed);
  if (failed) throw_file_error("create", folder_, failed.value());
  UniqueStems stems;
  for (int64_t i = 0; i < data.size(); ++i) stems_.push_back(stems.next(data.image(i).file));
}

void ValidationLabels::listen(EvaluatorHooks& hooks) {
  hooks.part_done.push_back(
      [this](int64_t, const Batch& batch, int64_t first, const BatchDetections& found) { add(batch, first, found); });
}

void ValidationLabels::add(const Batch& batch, int64_t first, const BatchDetections& found) const {
  const std::vector<std::string> texts = validation_labels(batch, first, found, confidence_);
  parallel_chunks(int64_t(texts.size()), [&](int64_t i) {
    const fs::path file = folder_ / (stems_[size_t(batch.indices[size_t(first + i)])] + ".txt");
    std::error_code ignored;
    if (texts[size_t(i)].empty()) {
      fs::remove(file, ignored);  // of an earlier run into this folder
    } else {
      write_file_atomic(file, texts[size_t(i)]);
    }
  });
}

}  // namespace tessera
