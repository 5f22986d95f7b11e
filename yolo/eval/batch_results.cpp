#include "yolo/eval/batch_results.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <span>

#include "data/rle.h"
#include "tensor/base/parallel.h"
#include "yolo/eval/coco_eval.h"
#include "yolo/eval/original_ap.h"

namespace tessera {

namespace {

// The original compares a mask with the objects of its class alone: where the image has none, nothing depends on it.
bool is_compared(int32_t class_id, std::span<const int32_t> label_classes) {
  return std::find(label_classes.begin(), label_classes.end(), class_id) != label_classes.end();
}

// What the loader knows of an image, in original-image pixels.
struct LabelledImage {
  std::vector<BoxXyxy> boxes;
  std::vector<size_t> positions;  // in the targets of the batch
};

// Fills the image's classes.
LabelledImage labelled_image(const Batch& batch, int64_t image, ImageResult& out) {
  const ResultGeometry geometry = result_geometry(batch, image);
  const float width = float(geometry.network_width), height = float(geometry.network_height);
  LabelledImage labels;
  for (size_t t = 0; t < batch.targets.size(); ++t) {
    if (batch.target_image[t] != image) continue;
    const auto& b = batch.targets[t].box;
    const float cx = b[0] * width, cy = b[1] * height, w = b[2] * width, h = b[3] * height;
    labels.boxes.push_back(scale_box({cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2}, geometry));
    labels.positions.push_back(t);
    out.label_classes.push_back(batch.targets[t].class_id);
  }
  return labels;
}

// Computes the masks of `items`, those of the detections of each image or none, and calls take(image, detection, mask), on all
// threads and in any order.
void for_each_mask(const BatchDetections& found, std::span<const std::vector<MaskItem>> items,
                   const std::function<void(size_t image, size_t i, const MaskView& mask)>& take) {
  struct Place {
    size_t image, i;
  };
  std::vector<MaskItem> all;
  std::vector<Place> places;
  for (size_t image = 0; image < items.size(); ++image) {
    all.insert(all.end(), items[image].begin(), items[image].end());
    for (size_t i = 0; i < items[image].size(); ++i) places.push_back({image, i});
  }
  for_each_mask(found, all, [&](int64_t k, const MaskView& mask) { take(places[size_t(k)].image, places[size_t(k)].i, mask); });
}

// Of the masks that found an object at IoU 0.50, which is the best of their class; 0 for others.
std::vector<float> matched_iou(std::span<const float> iou, const ImageResult& of) {
  const size_t detections = of.mask_tp.size();
  std::vector<float> matched(detections, 0);
  for (size_t d = 0; d < detections; ++d) {
    if (!(of.mask_tp[d] & 1)) continue;
    for (size_t l = 0; l < of.label_classes.size(); ++l) {
      if (of.label_classes[l] == of.detections.classes[d]) matched[d] = std::max(matched[d], iou[l * detections + d]);
    }
  }
  return matched;
}

void match_as_original(const BatchPart& part, std::vector<ImageResult>& results) {
  const Batch& batch = part.batch;
  const BatchDetections& found = part.found;
  std::vector<LabelledImage> labels(results.size());
  std::vector<int64_t> matched;  // images with labels and detections
  for (size_t image = 0; image < results.size(); ++image) {
    ImageResult& out = results[image];
    labels[image] = labelled_image(batch, part.of_batch(int64_t(image)), out);
    out.box_tp.assign(size_t(out.detections.size()), 0);
    out.mask_tp.assign(size_t(out.detections.size()), 0);
    out.mask_iou.assign(size_t(out.detections.size()), 0);
    if (!labels[image].boxes.empty() && out.detections.size() > 0) matched.push_back(int64_t(image));
  }
  const int height = int(batch.images.size(1)), width = int(batch.images.size(2));
  std::vector<std::vector<MaskItem>> items(results.size());
  std::vector<std::vector<Rle>> masks(results.size());
  for (const int64_t image : matched) {
    const ImageResult& of = results[size_t(image)];
    for (int64_t i = 0; i < of.detections.size(); ++i) {
      MaskItem& m = items[size_t(image)].emplace_back(mask_item(found, image, i, height, width, MaskSize::kPrototype));
      if (!is_compared(of.detections.classes[size_t(i)], of.label_classes)) m.where = {};
    }
    masks[size_t(image)].resize(items[size_t(image)].size());
  }
  for_each_mask(found, items, [&](size_t image, size_t i, const MaskView& mask) { masks[image][i] = mask.rle(); });
  parallel_chunks(int64_t(matched.size()), [&](int64_t m) {
    const int64_t image = matched[size_t(m)];
    const LabelledImage& known = labels[size_t(image)];
    ImageResult& out = results[size_t(image)];
    const ResultGeometry geometry = part.geometry(image);
    std::vector<BoxXyxy> boxes;
    for (const BoxXyxy& b : out.detections.boxes) boxes.push_back(scale_box(b, geometry));
    out.box_tp = match_detections(box_iou(known.boxes, boxes), out.label_classes, out.detections.classes);

    RunList predicted;
    predicted.reserve(int64_t(masks[size_t(image)].size()));
    for (const Rle& mask : masks[size_t(image)]) predicted.push(mask);
    const int mh = int(batch.masks.size(1)), mw = int(batch.masks.size(2));
    const int64_t plane = batch.overlap ? part.of_batch(image) : int64_t(known.positions.front());
    const RunList truth =
        label_masks(batch.masks.data<int32_t>() + plane * mh * mw, batch.overlap ? LabelMasks::kOverlap : LabelMasks::kSeparate,
                    int64_t(known.boxes.size()), mh, mw, int(found.prototypes.size(1)), int(found.prototypes.size(2)));
    const std::vector<float> iou = mask_iou(truth, predicted);
    out.mask_tp = match_detections(iou, out.label_classes, out.detections.classes);
    out.mask_iou = matched_iou(iou, out);
  });
}

// Truth at original size straight from the polygons of the labels.
std::vector<ScoredTruth> truths_of(const ScanImage& labels) {
  std::vector<ScoredTruth> truths;
  for (const LabelObject& object : labels.objects) {
    std::vector<double> xy;
    double x1 = labels.width, y1 = labels.height, x2 = 0, y2 = 0;
    for (const Point& p : object.polygon) {
      const double x = double(p.x) * labels.width, y = double(p.y) * labels.height;
      xy.insert(xy.end(), {x, y});
      x1 = std::min(x1, x), y1 = std::min(y1, y), x2 = std::max(x2, x), y2 = std::max(y2, y);
    }
    truths.push_back({object.class_id, {x1, y1, x2 - x1, y2 - y1}, rle_from_polygon(xy, labels.height, labels.width)});
  }
  return truths;
}

// Which masks of an image COCO's figures depend on: of each class those of the first detections, and of them those that can have a
// pixel in common with an object of the class.
class ComparedMasks {
 public:
  explicit ComparedMasks(std::span<const ScoredTruth> truths) {
    for (const ScoredTruth& t : truths) {
      const BoxLtwh box = rle_box(t.mask);
      objects_.push_back({t.class_id, {int(box[0]), int(box[1]), int(box[0] + box[2]), int(box[1] + box[3])}});
    }
  }
  // Of the next detection by falling score, whose mask lies within `reach`.
  bool next(int32_t class_id, const PixelBox& reach) {
    if (size_t(class_id) >= seen_.size()) seen_.resize(size_t(class_id) + 1, 0);
    return ++seen_[size_t(class_id)] <= kComparedDetections && std::any_of(objects_.begin(), objects_.end(), [&](const Object& o) {
      return o.class_id == class_id && !common(o.box, reach).empty();
    });
  }

 private:
  struct Object {
    int32_t class_id;
    PixelBox box;
  };
  std::vector<Object> objects_;
  std::vector<int64_t> seen_;  // by class
};

void to_original_images(const BatchPart& part, const SegDataset& data, MapStyle style, OriginalMasks masks,
                        std::vector<ImageResult>& results) {
  const BatchDetections& found = part.found;
  const int height = int(part.batch.images.size(1)), width = int(part.batch.images.size(2));
  std::vector<std::optional<JsonMask>> encoders(results.size());
  std::vector<std::vector<MaskItem>> items(results.size());
  parallel_chunks(int64_t(results.size()), [&](int64_t image) {
    ImageResult& out = results[size_t(image)];
    const ResultGeometry geometry = part.geometry(image);
    const JsonMask& encode = encoders[size_t(image)].emplace(geometry);
    if (style == MapStyle::kCoco) out.truths = truths_of(data.image(out.index));
    ComparedMasks compared(out.truths);
    for (size_t i = 0; i < size_t(out.detections.size()); ++i) {
      MaskItem& m = items[size_t(image)].emplace_back(mask_item(found, image, int64_t(i), height, width, MaskSize::kNative));
      m.where = encode.shown(m.where);
      ScoredDetection& d = out.scored.emplace_back();
      d.image = out.index, d.class_id = out.detections.classes[i], d.score = out.detections.scores[i];
      d.box = scale_box(out.detections.boxes[i], geometry);
      d.compared = compared.next(d.class_id, encode.reach(m.where));
      if (masks == OriginalMasks::kCompared && !d.compared) m.where = {};
    }
  });
  for_each_mask(found, items,
                [&](size_t image, size_t i, const MaskView& mask) { results[image].scored[i].mask = (*encoders[image])(mask); });
}

}  // namespace

ResultGeometry result_geometry(const Batch& batch, int64_t image) {
  const ImageGeometry& g = batch.geometry[size_t(image)];
  ResultGeometry r;
  r.network_height = int(batch.images.size(1));
  r.network_width = int(batch.images.size(2));
  r.original_height = g.original_height;
  r.original_width = g.original_width;
  r.has_ratio = true;
  r.gain = g.ratio_height;
  r.pad_left = g.pad_left;
  r.pad_top = g.pad_top;
  return r;
}

std::vector<ImageResult> image_results(const BatchPart& part, const SegDataset& data, MapStyle style, OriginalMasks masks) {
  std::vector<ImageResult> results(part.found.images.size());
  for (size_t image = 0; image < results.size(); ++image) {
    results[image].index = part.batch.indices[size_t(part.of_batch(int64_t(image)))];
    results[image].detections = part.found.images[image];
  }
  if (style == MapStyle::kOriginal) match_as_original(part, results);
  if (masks != OriginalMasks::kNone) to_original_images(part, data, style, masks, results);
  return results;
}

}  // namespace tessera
