#include "yolo/eval/evaluator.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <span>

#include "autograd/grad_mode.h"
#include "data/batch.h"
#include "tensor/backend.h"
#include "tensor/base/parallel.h"
#include "yolo/eval/coco_eval.h"
#include "yolo/eval/evaluation_mode.h"
#include "yolo/eval/image_result.h"
#include "yolo/eval/masks.h"
#include "yolo/eval/original_ap.h"
#include "yolo/eval/replayed_forward.h"

namespace tessera {

namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

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

// Neighbouring images of a batch that went through the network together. `found` and the results of a part count from its first
// image.
struct BatchPart {
  const Batch& batch;
  int64_t first;
  const BatchDetections& found;

  int64_t of_batch(int64_t image) const { return first + image; }
  ResultGeometry geometry(int64_t image) const { return result_geometry(batch, of_batch(image)); }
};

// Computes the masks of `items`, those of the detections of each image or none, and calls take(image, detection, mask), on all threads
// and in any order.
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
    const RunList truth = label_masks(batch.masks.data<int32_t>() + plane * mh * mw,
                                      batch.overlap ? LabelMasks::kOverlap : LabelMasks::kSeparate, int64_t(known.boxes.size()), mh, mw,
                                      int(found.prototypes.size(1)), int(found.prototypes.size(2)));
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
    return ++seen_[size_t(class_id)] <= kComparedDetections &&
           std::any_of(objects_.begin(), objects_.end(), [&](const Object& o) { return o.class_id == class_id && !common(o.box, reach).empty(); });
  }

 private:
  struct Object {
    int32_t class_id;
    PixelBox box;
  };
  std::vector<Object> objects_;
  std::vector<int64_t> seen_;  // by class
};

enum class OriginalMasks { kNone, kCompared, kAll };

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
  for_each_mask(found, items, [&](size_t image, size_t i, const MaskView& mask) {
    results[image].scored[i].mask = (*encoders[image])(mask);
  });
}

std::vector<ImageResult> process_part(const BatchPart& part, const SegDataset& data, const EvaluatorOptions& options,
                                      OriginalMasks masks) {
  std::vector<ImageResult> results(part.found.images.size());
  for (size_t image = 0; image < results.size(); ++image) {
    results[image].index = part.batch.indices[size_t(part.of_batch(int64_t(image)))];
    results[image].detections = part.found.images[image];
  }
  if (options.style == MapStyle::kOriginal) match_as_original(part, results);
  if (masks != OriginalMasks::kNone) to_original_images(part, data, options.style, masks, results);
  return results;
}

// Takes a part's outputs into those of the whole batch of n images. Every image goes its own way through the network in evaluation,
// so these are what the whole batch would give, bit for bit.
void join(RawOutputs& whole, RawOutputs part, int64_t first, int64_t n) {
  const auto place = [&](Variable& into, const Variable& from) {
    const Tensor& t = from.data();
    if (!into.defined()) into = Variable(Tensor::empty({n, t.size(1), t.size(2), t.size(3)}, t.dtype(), t.device()));
    into.data().narrow(0, first, t.size(0)).copy_from(t);
  };
  if (part.prototypes.size(0) == n) {
    whole = std::move(part);
    return;
  }
  for (size_t l = 0; l < size_t(kAnchorLevels); ++l) {
    place(whole.box[l], part.box[l]);
    place(whole.cls[l], part.cls[l]);
    place(whole.coefficients[l], part.coefficients[l]);
  }
  place(whole.prototypes, part.prototypes);
}

// An image as CocoEval takes it.
struct CocoImageResult {
  std::vector<CocoTruth> truths;
  std::vector<CocoDetection> detections;
  RunList detection_masks;
};

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

// Gathers images in order and scores them at the end.
class Scorer {
 public:
  Scorer(const std::vector<std::string>& names, MapStyle style, const SegDataset& data) : names_(names), style_(style), data_(data) {
    if (style != MapStyle::kCoco) return;
    std::vector<CocoCategory> categories;
    for (size_t i = 0; i < names.size(); ++i) categories.push_back({int64_t(i), names[i]});
    coco_.emplace(std::move(categories));
  }

  void add(std::span<const ImageResult> results) {
    std::vector<CocoImageResult> ready(coco_ ? results.size() : 0);
    parallel_chunks(int64_t(ready.size()), [&](int64_t i) {
      const ImageResult& result = results[size_t(i)];
      ready[size_t(i)] = coco_image(result, data_.image(result.index));
    });
    for (size_t i = 0; i < results.size(); ++i) {
      count(data_.image(results[i].index));
      scores_.images.push_back({results[i].index, int64_t(coco_ ? results[i].truths.size() : results[i].label_classes.size()), 0, {}, {}, 0});
      if (coco_) {
        add(std::move(ready[i]), results[i], data_.image(results[i].index));
      } else {
        add(results[i]);
      }
    }
  }

  // Curves and scores of images are computed where they are asked for.
  void finish(ValidationResult& r, DetectionCurves* box_curves, DetectionCurves* mask_curves, ImageScores* scores) {
    std::vector<DetectionMatch> box_matches, mask_matches;
    r.images = images_;
    r.instances = instances_;
    std::map<int32_t, ClassMetrics> classes;
    for (const auto& [id, count] : counts_) {
      classes[id].name = names_[size_t(id)];
      classes[id].images = count.images;
      classes[id].instances = count.instances;
    }
    if (coco_) {
      const CocoReport box = coco_->evaluate(IouKind::kBox, box_curves, scores ? &box_matches : nullptr);
      const CocoReport mask = coco_->evaluate(IouKind::kMask, mask_curves, scores ? &mask_matches : nullptr);
      scores_.confidence = mask.confidence;
      r.box = metric_set(box);
      r.mask = metric_set(mask);
      const auto take = [&](const CocoReport& report, ClassFigures ClassMetrics::*kind) {
        for (const CocoClassResult& c : report.classes) {
          if (const auto it = classes.find(int32_t(c.category_id)); it != classes.end())
            it->second.*kind = {c.ap, c.ap50, c.precision, c.recall, c.f1};
        }
      };
      take(box, &ClassMetrics::box);
      take(mask, &ClassMetrics::mask);
    } else {
      const OriginalAp box = original_ap(box_, label_classes_, box_curves), mask = original_ap(mask_, label_classes_, mask_curves);
      r.box = metric_set(box);
      r.mask = metric_set(mask);
      scores_.confidence = mask.confidence;
      if (scores) box_matches = matches_of(box_, {}), mask_matches = matches_of(mask_, mask_iou_);
      const auto take = [&](const OriginalAp& ap, ClassFigures ClassMetrics::*kind) {
        for (const OriginalClassAp& c : ap.classes) classes[c.class_id].*kind = {c.map(), c.ap[0], c.precision, c.recall, c.f1};
      };
      take(box, &ClassMetrics::box);
      take(mask, &ClassMetrics::mask);
    }
    for (auto& [id, metrics] : classes) r.classes.push_back(std::move(metrics));
    if (!scores) return;
    count_matches(box_matches, mask_matches, scores_);
    *scores = std::move(scores_);
  }

 private:
  struct ClassCount {
    int64_t images = 0, instances = 0, last_image = 0;
  };

  void count(const ScanImage& labels) {
    ++images_;
    instances_ += int64_t(labels.objects.size());
    for (const LabelObject& o : labels.objects) {
      ClassCount& c = counts_[o.class_id];
      ++c.instances;
      if (c.last_image != images_) ++c.images, c.last_image = images_;
    }
  }
  void add(CocoImageResult&& image, const ImageResult& result, const ScanImage& labels) {
    const int64_t id = coco_->add_image(images_, labels.height, labels.width);
    for (size_t i = 0; i < image.truths.size(); ++i) {
      image.truths[i].image = id;
      coco_->add_truth(image.truths[i], &result.truths[i].mask);
    }
    for (CocoDetection& d : image.detections) d.image = id;
    coco_->add_detections(image.detections, std::move(image.detection_masks));
  }
  void add(const ImageResult& result) {
    label_classes_.insert(label_classes_.end(), result.label_classes.begin(), result.label_classes.end());
    const Detections& d = result.detections;
    for (size_t i = 0; i < d.scores.size(); ++i) {
      box_.push_back({d.scores[i], d.classes[i], result.box_tp[i]});
      mask_.push_back({d.scores[i], d.classes[i], result.mask_tp[i]});
    }
    mask_iou_.insert(mask_iou_.end(), result.mask_iou.begin(), result.mask_iou.end());
    image_ends_.push_back(box_.size());
  }
  // iou: of each detection, or none, for boxes, of which nobody asks it.
  std::vector<DetectionMatch> matches_of(std::span<const ApDetection> detections, std::span<const float> iou) const {
    std::vector<DetectionMatch> matches;
    matches.reserve(detections.size());
    for (size_t image = 0, i = 0; image < image_ends_.size(); ++image) {
      for (; i < image_ends_[image]; ++i) {
        const bool found = detections[i].tp & 1;
        matches.push_back({int64_t(image), double(detections[i].confidence), !found ? 0 : iou.empty() ? 1 : double(iou[i])});
      }
    }
    return matches;
  }

  const std::vector<std::string>& names_;
  MapStyle style_;
  const SegDataset& data_;
  std::optional<CocoEval> coco_;
  std::vector<ApDetection> box_, mask_;
  std::vector<float> mask_iou_;
  std::vector<size_t> image_ends_;  // in those
  std::vector<int32_t> label_classes_;
  ImageScores scores_;
  std::map<int32_t, ClassCount> counts_;
  int64_t images_ = 0, instances_ = 0;
};

// What the ranks tell each other of a batch.
struct RankPart {
  LossReport loss;
  int64_t images = 0;
  bool stop = false;
};

struct ScoredFigures {
  int64_t images, instances;
  MetricSet box, mask;
};

// Of all ranks at rank 0, elsewhere empty.
std::vector<ImageResult> gathered(std::vector<ImageResult> own, Communicator& ranks) {
  std::vector<std::vector<ImageResult>> parts;
  for (const std::string& bytes : ranks.gather(pack(own), 0, "detections")) parts.push_back(unpack(bytes));
  return interleaved(std::move(parts));
}

// Rank 0 has scored: its figures to all.
void share_figures(ValidationResult& r, Communicator& ranks) {
  ScoredFigures figures{r.images, r.instances, r.box, r.mask};
  ranks.broadcast(figures, 0, "the figures of a validation");
  r.images = figures.images, r.instances = figures.instances;
  r.box = figures.box, r.mask = figures.mask;
}

void add_items(LossItems& sum, const LossItems& x) {
  sum.box += x.box, sum.seg += x.seg, sum.cls += x.cls, sum.dfl += x.dfl;
}

// Takes batches through the network, some images at a time, to what scoring needs of them.
class BatchEvaluation {
 public:
  BatchEvaluation(SegNetwork& network, const SegDataset& data, const EvaluatorOptions& options, const EvaluatorHooks& hooks)
      : network_(network), data_(data), options_(options), hooks_(hooks) {
    masks_ = hooks.detections                   ? OriginalMasks::kAll
             : options.style == MapStyle::kCoco ? OriginalMasks::kCompared
                                                : OriginalMasks::kNone;
    detection_.confidence = options.confidence;
    detection_.iou = options.iou;
    detection_.multi_label = network.nc() > 1;
    detection_.agnostic = options.agnostic;
    detection_.max_detections = options.max_detections;
  }

  // An image of the data set once more.
  void again(int64_t index) {
    std::vector<Sample> sample;
    sample.push_back(data_.get(index, 0));
    const Batch batch = collate(std::move(sample));
    network_.place(batch.images);
    hooks_.again(batch, detections(network_.run()));
  }

  // Hands the results over as they come, in order. Adds its times to `spent`, but for those of take().
  void run(int64_t index, const Batch& batch, LossReport& loss, SpeedMs& spent,
           const std::function<void(std::vector<ImageResult>)>& take) {
    const Device device = network_.device();
    const int64_t n = batch.size(), step = images_at_once(n, batch.images.size(1) * batch.images.size(2), device);
    RawOutputs whole;  // for the loss
    for (int64_t first = 0; first < n; first += step) {
      const auto t1 = Clock::now();
      network_.place(batch.images.narrow(0, first, std::min(step, n - first)));
      spent.preprocess += ms_since(t1);
      const auto t2 = Clock::now();
      const RawOutputs outputs = network_.run();
      backend_for(device).synchronize();  // the time is the network's own
      spent.inference += ms_since(t2);
      const auto t3 = Clock::now();
      if (hooks_.loss) join(whole, outputs, first, n);
      spent.loss += ms_since(t3);
      const auto t4 = Clock::now();
      const BatchDetections found = detections(outputs);
      std::vector<ImageResult> results = process_part({batch, first, found}, data_, options_, masks_);
      spent.postprocess += ms_since(t4);
      take(std::move(results));
      for (const auto& listener : hooks_.part_done) listener(index, batch, first, found);
    }
    if (hooks_.loss) {
      const auto t3 = Clock::now();
      loss = hooks_.loss(whole, batch);
      spent.loss += ms_since(t3);
    }
  }

 private:
  BatchDetections detections(const RawOutputs& outputs) const {
    BatchDetections found = detect(outputs, network_.strides(), detection_);
    if (options_.single_class) {
      for (Detections& d : found.images) std::fill(d.classes.begin(), d.classes.end(), 0);
    }
    return found;
  }

  SegNetwork& network_;
  const SegDataset& data_;
  const EvaluatorOptions& options_;
  const EvaluatorHooks& hooks_;
  OriginalMasks masks_;
  DetectParams detection_;
};

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

Evaluator::Evaluator(std::vector<std::string> class_names, EvaluatorOptions options)
    : class_names_(std::move(class_names)), options_(options) {}

ValidationResult Evaluator::run(YoloSeg& model, const SegDataset& data, Loader& loader, const EvaluatorHooks& hooks,
                                Communicator& ranks) const {
  const auto start = Clock::now();
  loader.start_epoch(0);  // reads the first images while the weights are folded
  const EvaluationMode mode(model);
  ReplayedForward network(model);
  return run_epoch(start, network, data, loader, hooks, ranks);
}

ValidationResult Evaluator::run(SegNetwork& network, const SegDataset& data, Loader& loader, const EvaluatorHooks& hooks,
                                Communicator& ranks) const {
  const auto start = Clock::now();
  loader.start_epoch(0);
  return run_epoch(start, network, data, loader, hooks, ranks);
}

ValidationResult Evaluator::run_epoch(Clock::time_point start, SegNetwork& network, const SegDataset& data, Loader& loader,
                                      const EvaluatorHooks& hooks, Communicator& ranks) const {
  const NoGrad no_grad;
  Scorer scorer(class_names_, options_.style, data);
  BatchEvaluation evaluation(network, data, options_, hooks);
  ValidationResult result;
  SpeedMs spent;  // in all
  int64_t batches = 0, done = 0, own = 0;
  const auto score = [&](std::span<ImageResult> results) {
    scorer.add(results);
    if (!hooks.detections) return;
    std::vector<std::vector<ScoredDetection>> detections;
    for (ImageResult& r : results) detections.push_back(std::move(r.scored));
    hooks.detections(detections);
  };
  for (Batch batch; batches < loader.rounds(); ++batches) {
    RankPart part;
    std::vector<ImageResult> images_done;
    const auto t0 = Clock::now();
    if (loader.next(batch)) {  // or else the last round has no image for this rank
      spent.load += ms_since(t0);
      evaluation.run(batches, batch, part.loss, spent, [&](std::vector<ImageResult> results) {
        const auto t1 = Clock::now();
        part.images += int64_t(results.size());
        if (ranks.alone()) {
          score(results);  // at once: the masks are still in the caches
        } else {
          std::move(results.begin(), results.end(), std::back_inserter(images_done));
        }
        spent.evaluate += ms_since(t1);
      });
    }
    const auto t5 = Clock::now();
    own += part.images;
    part.stop = hooks.stop && hooks.stop();
    bool stop = false;
    std::vector<LossReport> losses;
    for (const RankPart& p : ranks.all_gather(part, "the state of a validation batch")) {
      done += p.images;
      stop = stop || p.stop;
      losses.push_back(p.loss);
    }
    if (hooks.loss) add_items(result.loss, joined(losses).items);
    if (!ranks.alone()) {
      std::vector<ImageResult> of_all = gathered(std::move(images_done), ranks);
      score(of_all);
    }
    spent.evaluate += ms_since(t5);
    if (hooks.progress) hooks.progress(done, data.size());
    if (stop) throw Error(ErrorCode::kInterrupted, "validation was interrupted", {}, "start it again");
  }
  const auto t6 = Clock::now();
  DetectionCurves box_curves, mask_curves;
  ImageScores scores;
  const bool drawn = bool(hooks.curves) && ranks.leader(), listed = bool(hooks.images) && ranks.leader();
  if (ranks.leader()) {
    scorer.finish(result, drawn ? &box_curves : nullptr, drawn ? &mask_curves : nullptr, listed ? &scores : nullptr);
  }
  share_figures(result, ranks);
  result.map_style = options_.style == MapStyle::kCoco ? "coco" : "original";
  spent.evaluate += ms_since(t6);
  if (batches > 0) {
    for (double* x : {&result.loss.box, &result.loss.seg, &result.loss.cls, &result.loss.dfl}) *x /= double(batches);
  }
  const double n = std::max<double>(1.0, double(own));
  result.speed = {spent.load / n, spent.preprocess / n,  spent.inference / n,
                  spent.loss / n, spent.postprocess / n, spent.evaluate / n};
  result.seconds = ms_since(start) / 1e3;
  if (drawn) hooks.curves(box_curves, mask_curves);
  if (listed) {
    for (const int64_t index : hooks.images(scores)) evaluation.again(index);
  }
  return result;
}

// A validation batch at once would fill gigabytes, whose pages have to be cleared.
int64_t images_at_once(int64_t images, int64_t pixels, Device device) {
  if (device != Device::cpu()) return images;
  constexpr int64_t kPixelsPerThread = int64_t(1) << 20;
  const int64_t threads = compute_threads(), most = std::max<int64_t>(threads * kPixelsPerThread / pixels, 1);
  // What follows the network goes image by image: as many for each thread.
  return std::min(most > threads ? most / threads * threads : most, images);
}

}  // namespace tessera
