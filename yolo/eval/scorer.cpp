#include "yolo/eval/scorer.h"

#include <algorithm>
#include <utility>

#include "tensor/base/parallel.h"

namespace tessera {

// An image as CocoEval takes it; the id of the image is still to be set.
struct CocoImageResult {
  std::vector<CocoTruth> truths;
  std::vector<CocoDetection> detections;
  RunList detection_masks;
};

namespace {

CocoImageResult coco_image(const ImageResult& result, const ScanImage& labels) {
  CocoImageResult to;
  for (const ScoredTruth& t : result.truths) {
    CocoTruth& truth = to.truths.emplace_back();
    truth.category = t.class_id;
    truth.area = double(rle_area(t.mask));
    truth.box = t.box;
  }
  size_t bounds = 0;
  for (const ScoredDetection& d : result.scored) bounds += d.compared ? d.mask.counts.size() + 1 : 0;
  to.detection_masks.reserve(int64_t(result.scored.size()), bounds);
  for (const ScoredDetection& d : result.scored) {
    TESSERA_CHECK(d.mask.height == labels.height && d.mask.width == labels.width, "a mask of {} x {} in an image of {} x {}",
                  d.mask.height, d.mask.width, labels.height, labels.width);
    CocoDetection& detection = to.detections.emplace_back();
    detection.category = d.class_id;
    detection.score = double(d.score);
    detection.box = {double(d.box.x1), double(d.box.y1), double(d.box.x2) - double(d.box.x1), double(d.box.y2) - double(d.box.y1)};
    detection.area = detection.box[2] * detection.box[3];
    if (d.compared) {
      to.detection_masks.push(d.mask);
    } else {
      to.detection_masks.push_empty();
    }
  }
  return to;
}

MetricSet metric_set(const CocoReport& r) {
  const auto known = [](double x) { return std::max(x, 0.0); };
  MetricSet m;
  m.map = known(r.summary.map()), m.map50 = known(r.summary.map50()), m.map75 = known(r.summary.map75());
  m.maps = r.summary.maps(), m.mapm = r.summary.mapm(), m.mapl = r.summary.mapl();
  m.precision = r.precision, m.recall = r.recall, m.f1 = r.f1;
  return m;
}

MetricSet metric_set(const OriginalAp& r) {
  MetricSet m;
  m.map = r.map, m.map50 = r.map50, m.map75 = r.map75;
  m.precision = r.precision, m.recall = r.recall, m.f1 = r.f1;
  return m;
}

}  // namespace

Scorer::Scorer(const std::vector<std::string>& names, MapStyle style, const SegDataset& data) : names_(names), data_(data) {
  if (style != MapStyle::kCoco) return;
  std::vector<CocoCategory> categories;
  for (size_t i = 0; i < names.size(); ++i) categories.push_back({int64_t(i), names[i]});
  coco_.emplace(std::move(categories));
}

void Scorer::add(std::span<const ImageResult> results) {
  std::vector<CocoImageResult> ready(coco_ ? results.size() : 0);
  parallel_chunks(int64_t(ready.size()), [&](int64_t i) {
    const ImageResult& result = results[size_t(i)];
    ready[size_t(i)] = coco_image(result, data_.image(result.index));
  });
  for (size_t i = 0; i < results.size(); ++i) {
    const ImageResult& result = results[i];
    const ScanImage& labels = data_.image(result.index);
    count(labels);
    ImageScore& score = scores_.images.emplace_back();
    score.index = result.index;
    score.objects = int64_t(coco_ ? result.truths.size() : result.label_classes.size());
    if (coco_) {
      add_to_coco(std::move(ready[i]), result, labels);
    } else {
      add_to_records(result);
    }
  }
}

void Scorer::count(const ScanImage& labels) {
  ++images_;
  instances_ += int64_t(labels.objects.size());
  for (const LabelObject& o : labels.objects) {
    ClassCount& c = counts_[o.class_id];
    ++c.instances;
    if (c.last_image != images_) ++c.images, c.last_image = images_;
  }
}

void Scorer::add_to_coco(CocoImageResult&& image, const ImageResult& result, const ScanImage& labels) {
  const int64_t id = coco_->add_image(images_, labels.height, labels.width);
  for (size_t i = 0; i < image.truths.size(); ++i) {
    image.truths[i].image = id;
    coco_->add_truth(image.truths[i], &result.truths[i].mask);
  }
  for (CocoDetection& d : image.detections) d.image = id;
  coco_->add_detections(image.detections, std::move(image.detection_masks));
}

void Scorer::add_to_records(const ImageResult& result) {
  OriginalRecords& to = records_;
  to.label_classes.insert(to.label_classes.end(), result.label_classes.begin(), result.label_classes.end());
  const Detections& d = result.detections;
  for (size_t i = 0; i < d.scores.size(); ++i) {
    to.box.push_back({d.scores[i], d.classes[i], result.box_tp[i]});
    to.mask.push_back({d.scores[i], d.classes[i], result.mask_tp[i]});
  }
  to.mask_iou.insert(to.mask_iou.end(), result.mask_iou.begin(), result.mask_iou.end());
  to.image_ends.push_back(to.box.size());
}

// iou: of each detection; empty: an IoU of 1 stands for every match, for boxes, whose IoU nobody asks for.
std::vector<DetectionMatch> Scorer::matches_of(std::span<const ApDetection> detections, std::span<const float> iou) const {
  std::vector<DetectionMatch> matches;
  matches.reserve(detections.size());
  for (size_t image = 0, i = 0; image < records_.image_ends.size(); ++image) {
    for (; i < records_.image_ends[image]; ++i) {
      const bool found = detections[i].tp & 1;
      matches.push_back({int64_t(image), double(detections[i].confidence), !found ? 0 : iou.empty() ? 1 : double(iou[i])});
    }
  }
  return matches;
}

Scorer::Matches Scorer::finish_coco(ValidationResult& r, Classes& classes, const Extras& extras) {
  Matches matches;
  const CocoReport box = coco_->evaluate(IouKind::kBox, extras.box_curves, extras.images ? &matches.box : nullptr);
  const CocoReport mask = coco_->evaluate(IouKind::kMask, extras.mask_curves, extras.images ? &matches.mask : nullptr);
  r.box = metric_set(box);
  r.mask = metric_set(mask);
  scores_.confidence = mask.confidence;
  const auto take = [&](const CocoReport& report, ClassFigures ClassMetrics::*kind) {
    for (const CocoClassResult& c : report.classes) {
      if (const auto it = classes.find(int32_t(c.category_id)); it != classes.end())
        it->second.*kind = {c.ap, c.ap50, c.precision, c.recall, c.f1};
    }
  };
  take(box, &ClassMetrics::box);
  take(mask, &ClassMetrics::mask);
  return matches;
}

Scorer::Matches Scorer::finish_original(ValidationResult& r, Classes& classes, const Extras& extras) {
  const OriginalAp box = original_ap(records_.box, records_.label_classes, extras.box_curves);
  const OriginalAp mask = original_ap(records_.mask, records_.label_classes, extras.mask_curves);
  r.box = metric_set(box);
  r.mask = metric_set(mask);
  scores_.confidence = mask.confidence;
  const auto take = [&](const OriginalAp& ap, ClassFigures ClassMetrics::*kind) {
    for (const OriginalClassAp& c : ap.classes) classes[c.class_id].*kind = {c.map(), c.ap[0], c.precision, c.recall, c.f1};
  };
  take(box, &ClassMetrics::box);
  take(mask, &ClassMetrics::mask);
  if (extras.images == nullptr) return {};
  return {matches_of(records_.box, {}), matches_of(records_.mask, records_.mask_iou)};
}

void Scorer::finish(ValidationResult& r, const Extras& extras) {
  r.images = images_;
  r.instances = instances_;
  Classes classes;
  for (const auto& [id, count] : counts_) {
    classes[id].name = names_[size_t(id)];
    classes[id].images = count.images;
    classes[id].instances = count.instances;
  }
  const Matches matches = coco_ ? finish_coco(r, classes, extras) : finish_original(r, classes, extras);
  for (auto& [id, metrics] : classes) r.classes.push_back(std::move(metrics));
  if (extras.images == nullptr) return;
  count_matches(matches.box, matches.mask, scores_);
  *extras.images = std::move(scores_);
}

}  // namespace tessera
