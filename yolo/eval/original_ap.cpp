#include "yolo/eval/original_ap.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "tensor/base/check.h"
#include "tensor/base/parallel.h"

namespace tessera {

namespace {

constexpr int kPoints = 1000, kRecalls = 101, kSmooth = 101;
constexpr double kTiny = 1e-16;

// torch.linspace(0.5, 0.95, 10): from both ends inwards, in float32.
constexpr auto kIouThresholds = [] {
  std::array<float, kApThresholds> t{};
  const float step = (0.95f - 0.5f) / 9;
  for (int i = 0; i < kApThresholds; ++i)
    t[size_t(i)] = i < kApThresholds / 2 ? 0.5f + step * float(i) : 0.95f - step * float(9 - i);
  return t;
}();

// numpy.interp at one x between xp[0] and xp.back(); `at` is a search start that only moves forward for ascending x. Equal xp: the
// right-most entry wins.
double interpolate(double x, std::span<const double> xp, std::span<const double> fp, size_t& at) {
  while (at + 1 < xp.size() && xp[at + 1] <= x) ++at;
  if (at + 1 == xp.size() || xp[at] == x) return fp[at];
  const double slope = (fp[at + 1] - fp[at]) / (xp[at + 1] - xp[at]);
  return slope * (x - xp[at]) + fp[at];
}

// A precision-recall curve between its ends, made to fall (spec 9.4, step 5).
struct Envelope {
  std::vector<double> recall{0}, precision{1};

  Envelope(std::span<const double> r, std::span<const double> p) {
    recall.insert(recall.end(), r.begin(), r.end()), precision.insert(precision.end(), p.begin(), p.end());
    recall.push_back(1), precision.push_back(0);
    for (size_t i = precision.size() - 1; i-- > 0;) precision[i] = std::max(precision[i], precision[i + 1]);
  }
};

// Trapezoids between 101 points.
double area_under(const Envelope& e) {
  double area = 0, last_x = 0, last_y = 0;
  size_t at = 0;
  for (int i = 0; i < kRecalls; ++i) {
    const double x = i == kRecalls - 1 ? 1.0 : i * 0.01, y = interpolate(x, e.recall, e.precision, at);
    if (i > 0) area += (x - last_x) * (y + last_y) / 2;
    last_x = x, last_y = y;
  }
  return area;
}

struct Curves {
  std::array<double, kPoints> precision{}, recall{};  // over confidence
  std::vector<double> precision_at_recall;            // only when it is drawn
};

double grid_at(int i) { return i == kPoints - 1 ? 1.0 : i * (1.0 / (kPoints - 1)); }

// Curves and AP of one class; `hits` in descending confidence.
void measure_class(std::span<const ApDetection> hits, bool drawn, OriginalClassAp& result, Curves& curves) {
  if (hits.empty()) return;
  const size_t n = hits.size();
  std::vector<double> recall(n), precision(n), minus_confidence(n);
  for (size_t i = 0; i < n; ++i) minus_confidence[i] = -double(hits[i].confidence);
  for (int t = kApThresholds - 1; t >= 0; --t) {  // threshold 0.5 last: the curves are made of it
    int64_t tp = 0;
    for (size_t i = 0; i < n; ++i) {
      tp += hits[i].tp >> t & 1;
      recall[i] = double(tp) / (double(result.labels) + kTiny);
      precision[i] = double(tp) / double(i + 1);
    }
    const Envelope envelope(recall, precision);
    result.ap[size_t(t)] = area_under(envelope);
    if (t > 0 || !drawn) continue;
    size_t at = 0;
    for (int i = 0; i < kPoints; ++i)
      curves.precision_at_recall.push_back(interpolate(grid_at(i), envelope.recall, envelope.precision, at));
  }
  size_t at_r = 0, at_p = 0;
  for (int i = kPoints; i-- > 0;) {  // descending confidence
    const double x = -grid_at(i);
    const bool above = x < minus_confidence[0];
    curves.recall[size_t(i)] = above ? 0 : interpolate(x, minus_confidence, recall, at_r);
    curves.precision[size_t(i)] = above ? 1 : interpolate(x, minus_confidence, precision, at_p);
  }
}

double f1_of(double p, double r) { return 2 * p * r / (p + r + kTiny); }

// Box filter with the end values repeated.
std::vector<double> smoothed(std::span<const double> y) {
  std::vector<double> out(kPoints);
  for (int i = 0; i < kPoints; ++i) {
    for (int k = i - kSmooth / 2; k <= i + kSmooth / 2; ++k)
      out[size_t(i)] += y[size_t(std::clamp(k, 0, kPoints - 1))] * (1.0 / kSmooth);
  }
  return out;
}

DetectionCurves curves_to_draw(const OriginalAp& ap, std::span<const Curves> curves) {
  DetectionCurves out;
  for (int i = 0; i < kPoints; ++i) out.x.push_back(grid_at(i));
  for (size_t c = 0; c < curves.size(); ++c) {
    const auto& [precision, recall, at_recall] = curves[c];
    DetectionCurves::Row& row = out.classes.emplace_back();
    row.class_id = ap.classes[c].class_id;
    row.ap50 = ap.classes[c].ap[0];
    row.precision_at_recall = at_recall;
    row.precision_at_recall.resize(kPoints);  // of a class without detections: 0
    row.precision.assign(precision.begin(), precision.end());
    row.recall.assign(recall.begin(), recall.end());
    for (size_t i = 0; i < kPoints; ++i) row.f1.push_back(f1_of(precision[i], recall[i]));
  }
  out.mean = mean_row(out.classes);
  for (std::vector<double>* curve : {&out.mean.precision, &out.mean.recall, &out.mean.f1}) *curve = smoothed(*curve);
  return out;
}

}  // namespace

std::vector<float> box_iou(std::span<const BoxXyxy> labels, std::span<const BoxXyxy> detections) {
  std::vector<float> iou;
  iou.reserve(labels.size() * detections.size());
  for (const BoxXyxy& a : labels) {
    const float area = a.width() * a.height();
    for (const BoxXyxy& b : detections) {
      const float w = std::max(std::min(a.x2, b.x2) - std::max(a.x1, b.x1), 0.0f);
      const float h = std::max(std::min(a.y2, b.y2) - std::max(a.y1, b.y1), 0.0f);
      const float inter = w * h;
      iou.push_back(inter / (area + b.width() * b.height() - inter + 1e-7f));
    }
  }
  return iou;
}

std::vector<float> mask_iou(const RunList& labels, const RunList& detections) {
  std::vector<float> iou(size_t(labels.size() * detections.size()));
  parallel_for(labels.size() * detections.size(), 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t l = i / detections.size(), d = i % detections.size();
      const float inter = float(run_intersection(labels.bounds(l), detections.bounds(d)));
      iou[size_t(i)] = inter / (float(labels.area(l)) + float(detections.area(d)) - inter + 1e-7f);
    }
  });
  return iou;
}

std::vector<uint16_t> match_detections(std::span<const float> iou, std::span<const int32_t> label_classes,
                                       std::span<const int32_t> detection_classes) {
  const size_t labels = label_classes.size(), detections = detection_classes.size();
  TESSERA_CHECK(iou.size() == labels * detections, "match_detections: {} IoUs for {} labels and {} detections", iou.size(), labels,
                detections);
  std::vector<uint16_t> tp(detections, 0);
  // The best label of a detection is the same at every threshold that it passes.
  std::vector<uint16_t> claimed(labels, 0);  // thresholds at which the label has been found
  for (size_t d = 0; d < detections; ++d) {
    size_t best = labels;
    for (size_t l = 0; l < labels; ++l) {
      if (label_classes[l] != detection_classes[d]) continue;
      if (best == labels || iou[l * detections + d] > iou[best * detections + d]) best = l;
    }
    if (best == labels) continue;
    uint16_t passed = 0;
    for (int t = 0; t < kApThresholds; ++t) {
      if (iou[best * detections + d] >= kIouThresholds[size_t(t)]) passed |= uint16_t(1 << t);
    }
    tp[d] = uint16_t(passed & ~claimed[best]);
    claimed[best] |= passed;
  }
  return tp;
}

double OriginalClassAp::map() const { return std::accumulate(ap.begin(), ap.end(), 0.0) / kApThresholds; }

OriginalAp original_ap(std::span<const ApDetection> detections, std::span<const int32_t> label_classes, DetectionCurves* drawn) {
  if (drawn) *drawn = {};
  std::map<int32_t, int64_t> labels;
  for (int32_t c : label_classes) ++labels[c];
  OriginalAp out;
  if (labels.empty()) return out;

  std::vector<ApDetection> sorted(detections.begin(), detections.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.confidence > b.confidence; });
  std::map<int32_t, std::vector<ApDetection>> by_class;
  for (const ApDetection& d : sorted) by_class[d.class_id].push_back(d);

  for (const auto& [class_id, count] : labels) out.classes.push_back({class_id, count, 0, 0, 0, {}});
  const size_t n = out.classes.size();
  std::vector<Curves> curves(n);
  for (const auto& c : out.classes) by_class.try_emplace(c.class_id);
  parallel_chunks(int64_t(n), [&](int64_t c) {
    measure_class(by_class.find(out.classes[size_t(c)].class_id)->second, drawn != nullptr, out.classes[size_t(c)],
                  curves[size_t(c)]);
  });

  std::array<double, kPoints> mean_f1{};
  for (const Curves& c : curves) {
    for (size_t i = 0; i < kPoints; ++i) mean_f1[i] += f1_of(c.precision[i], c.recall[i]);
  }
  for (double& v : mean_f1) v /= double(n);
  const std::vector<double> smooth_f1 = smoothed(mean_f1);
  const int best = int(std::max_element(smooth_f1.begin(), smooth_f1.end()) - smooth_f1.begin());
  out.confidence = grid_at(best);
  for (size_t c = 0; c < n; ++c) {
    OriginalClassAp& r = out.classes[c];
    r.precision = curves[c].precision[size_t(best)], r.recall = curves[c].recall[size_t(best)], r.f1 = f1_of(r.precision, r.recall);
    out.precision += r.precision, out.recall += r.recall, out.f1 += r.f1;
    out.map50 += r.ap[0], out.map75 += r.ap[5], out.map += r.map();
  }
  for (double* v : {&out.precision, &out.recall, &out.f1, &out.map50, &out.map75, &out.map}) *v /= double(n);
  if (drawn) *drawn = curves_to_draw(out, curves);
  return out;
}

ConfusionMatrix::ConfusionMatrix(int32_t classes, double confidence, double iou)
    : classes_(classes),
      confidence_(float(confidence) == 0.001f ? 0.25f : float(confidence)),
      iou_(float(iou)),
      counts_(size_t(classes + 1) * size_t(classes + 1), 0),
      column_sums_(size_t(classes + 1), 0) {}

void ConfusionMatrix::add(std::span<const BoxXyxy> labels, std::span<const int32_t> label_classes,
                          std::span<const BoxXyxy> detections, std::span<const int32_t> detection_classes,
                          std::span<const float> confidences) {
  std::vector<BoxXyxy> boxes;
  std::vector<int32_t> classes;
  for (size_t d = 0; d < detections.size(); ++d) {
    if (confidences[d] > confidence_) boxes.push_back(detections[d]), classes.push_back(detection_classes[d]);
  }
  struct Pair {
    size_t label, detection;
    float iou;
  };
  const std::vector<float> iou = box_iou(labels, boxes);
  std::vector<Pair> pairs;
  for (size_t i = 0; i < iou.size(); ++i) {
    if (iou[i] > iou_) pairs.push_back({i / boxes.size(), i % boxes.size(), iou[i]});
  }
  const auto higher = [](const Pair& a, const Pair& b) { return a.iou > b.iou; };
  // Each detection keeps its best label, in the order of the detections; then each label its best of those.
  std::stable_sort(pairs.begin(), pairs.end(), higher);
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.detection < b.detection; });
  pairs.erase(std::unique(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.detection == b.detection; }),
              pairs.end());
  std::stable_sort(pairs.begin(), pairs.end(), higher);

  std::vector<uint8_t> found(labels.size(), 0), used(boxes.size(), 0);
  for (const Pair& p : pairs) {
    if (found[p.label]) continue;
    found[p.label] = used[p.detection] = 1;
    count(classes[p.detection], label_classes[p.label]);
  }
  for (size_t l = 0; l < labels.size(); ++l) {
    if (!found[l]) count(classes_, label_classes[l]);
  }
  for (size_t d = 0; d < boxes.size(); ++d) {
    if (!used[d]) count(classes[d], classes_);
  }
}

void ConfusionMatrix::add(std::span<const uint32_t> counts) {
  for (size_t i = 0; i < counts_.size(); ++i) {
    counts_[i] += counts[i];
    column_sums_[i % column_sums_.size()] += int64_t(counts[i]);
  }
}

}  // namespace tessera
