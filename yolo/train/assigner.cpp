#include "yolo/train/assigner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "tensor/base/parallel.h"

namespace tessera {

namespace {

constexpr float kEps = 1e-7f;
constexpr float kInsideMargin = 1e-9f;  // an anchor on the border is outside
constexpr float kNormEps = 1e-9f;

struct Candidate {
  int32_t anchor;
  float metric, overlap;
};

// What one image knows of each anchor while its ground truths are visited in order. Reused from call to call.
struct Scratch {
  std::vector<int32_t> inside;            // anchors inside the box at hand
  std::vector<Candidate> candidates;      // the same with their metric
  std::vector<std::array<float, 4>> box;  // predicted, where known
  std::vector<float> angle;               // of the predicted box; NaN: not asked for yet
  std::vector<int32_t> picks;             // ground truths that chose the anchor
  std::vector<int32_t> target;            // the first of them
  std::vector<Candidate> chosen;          // metric and overlap with it
  std::vector<int32_t> best_target;       // ground truth with the largest overlap, lowest index first; 0 when all are 0
  std::vector<Candidate> best;            // metric and overlap with that one

  void reset(size_t anchors) {
    box.resize(anchors);
    angle.assign(anchors, std::numeric_limits<float>::quiet_NaN());
    picks.assign(anchors, 0);
    target.assign(anchors, 0);
    chosen.assign(anchors, {});
    best_target.assign(anchors, 0);
    best.assign(anchors, {});
  }
};

class ImageAssigner {
 public:
  ImageAssigner(int64_t image, const PaddedTargets& targets, const Anchors& anchors, const Predictions& predictions,
                const AssignerConfig& config, Scratch& scratch)
      : image_(image), targets_(targets), anchors_(anchors), predictions_(predictions), config_(config), s_(scratch) {}

  std::vector<Positive> run() {
    s_.reset(size_t(anchors_.count()));
    for (int64_t g = 0; g < targets_.width; ++g) {
      if (targets_.valid[targets_.at(image_, g)]) visit(g);
    }
    return positives();
  }

 private:
  // Steps 2 to 6 for one ground truth.
  void visit(int64_t g) {
    const std::array<float, 4>& gt = targets_.boxes[targets_.at(image_, g)];
    find_inside(gt);
    const float gt_angle = box_angle(gt);
    s_.candidates.clear();
    for (const int32_t a : s_.inside) {
      const size_t i = size_t(a);
      if (std::isnan(s_.angle[i])) {
        s_.box[i] = predictions_.box(image_, a);
        s_.angle[i] = box_angle(s_.box[i]);
      }
      const float overlap = std::max(ciou(gt, s_.box[i], gt_angle, s_.angle[i]), 0.0f);
      const float score = predictions_.score(image_, a, targets_.classes[targets_.at(image_, g)]);
      const Candidate c{a, std::pow(score, config_.alpha) * std::pow(overlap, config_.beta), overlap};
      if (overlap > s_.best[i].overlap) {
        s_.best[i] = c;
        s_.best_target[i] = int32_t(g);
      }
      s_.candidates.push_back(c);
    }
    pick(g);
  }

  void find_inside(const std::array<float, 4>& gt) {
    const size_t n = size_t(anchors_.count());
    s_.inside.resize(n);
    size_t count = 0;
    for (size_t a = 0; a < n; ++a) {  // without a branch: the write is kept when the anchor is inside
      const float x = anchors_.x[a], y = anchors_.y[a];
      const float margin = std::min(std::min(x - gt[0], y - gt[1]), std::min(gt[2] - x, gt[3] - y));
      s_.inside[count] = int32_t(a);
      count += margin > kInsideMargin;
    }
    s_.inside.resize(count);
  }

  // The topk largest metrics of all anchors, lowest index first among equals. Anchors outside the box have metric 0 and never
  // become positive, but take places when fewer than topk metrics are above 0.
  void pick(int64_t g) {
    auto& c = s_.candidates;
    const auto zeros = std::partition(c.begin(), c.end(), [](const Candidate& x) { return x.metric > 0; });
    const size_t k = std::min(size_t(config_.topk), size_t(zeros - c.begin()));
    std::partial_sort(c.begin(), c.begin() + int64_t(k), zeros, [](const Candidate& a, const Candidate& b) {
      return a.metric != b.metric ? a.metric > b.metric : a.anchor < b.anchor;
    });
    for (size_t i = 0; i < k; ++i) choose(g, c[i]);
    int64_t places = config_.topk - int64_t(k);
    if (places <= 0 || zeros == c.end()) return;
    std::sort(c.begin(), zeros, [](const Candidate& a, const Candidate& b) { return a.anchor < b.anchor; });
    std::sort(zeros, c.end(), [](const Candidate& a, const Candidate& b) { return a.anchor < b.anchor; });
    auto above = c.begin();
    auto zero = zeros;
    for (int32_t a = 0; a < anchors_.count() && places > 0; ++a) {
      if (above != zeros && above->anchor == a) {
        ++above;
        continue;
      }
      --places;
      if (zero != c.end() && zero->anchor == a) choose(g, *zero++);
    }
  }

  void choose(int64_t g, const Candidate& c) {
    const size_t i = size_t(c.anchor);
    if (s_.picks[i]++ == 0) {
      s_.target[i] = int32_t(g);
      s_.chosen[i] = c;
    }
  }

  // Steps 7 and 9: contested anchors go to the ground truth they overlap most; scores are normalised for each ground truth.
  std::vector<Positive> positives() {
    std::vector<Positive> out;
    std::vector<float> largest_metric(size_t(targets_.width), 0.0f), largest_overlap(size_t(targets_.width), 0.0f);
    for (int64_t a = 0; a < anchors_.count(); ++a) {
      const size_t i = size_t(a);
      if (s_.picks[i] == 0) continue;
      const bool contested = s_.picks[i] > 1;
      const int32_t g = contested ? s_.best_target[i] : s_.target[i];
      const Candidate& c = contested ? s_.best[i] : s_.chosen[i];
      largest_metric[size_t(g)] = std::max(largest_metric[size_t(g)], c.metric);
      largest_overlap[size_t(g)] = std::max(largest_overlap[size_t(g)], c.overlap);
      out.push_back({int32_t(image_), int32_t(a), g, c.metric});  // normalised below
    }
    for (Positive& p : out) p.score = p.score * largest_overlap[size_t(p.target)] / (largest_metric[size_t(p.target)] + kNormEps);
    return out;
  }

  int64_t image_;
  const PaddedTargets& targets_;
  const Anchors& anchors_;
  const Predictions& predictions_;
  const AssignerConfig& config_;
  Scratch& s_;
};

}  // namespace

float box_angle(const std::array<float, 4>& box) { return std::atan((box[2] - box[0]) / (box[3] - box[1] + kEps)); }

float ciou(const std::array<float, 4>& a, const std::array<float, 4>& b, float atan_a, float atan_b) {
  const float w1 = a[2] - a[0], h1 = a[3] - a[1] + kEps;
  const float w2 = b[2] - b[0], h2 = b[3] - b[1] + kEps;
  const float inter =
      std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]), 0.0f) * std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]), 0.0f);
  const float iou = inter / (w1 * h1 + w2 * h2 - inter + kEps);
  const float cw = std::max(a[2], b[2]) - std::min(a[0], b[0]);
  const float ch = std::max(a[3], b[3]) - std::min(a[1], b[1]);
  const float dx = b[0] + b[2] - a[0] - a[2];
  const float dy = b[1] + b[3] - a[1] - a[3];
  const float distance = (dx * dx + dy * dy) / 4 / (cw * cw + ch * ch + kEps);
  const float angle = atan_b - atan_a;
  const float v = float(4 / (std::numbers::pi * std::numbers::pi)) * angle * angle;
  const float alpha = v / (v - iou + (1 + kEps));
  return iou - (distance + v * alpha);
}

std::vector<Positive> assign_targets(const PaddedTargets& targets, const Anchors& anchors, const Predictions& predictions,
                                     const AssignerConfig& config) {
  std::vector<std::vector<Positive>> of_image(static_cast<size_t>(targets.images));
  parallel_chunks(targets.images, [&](int64_t image) {
    static thread_local Scratch scratch;
    of_image[size_t(image)] = ImageAssigner(image, targets, anchors, predictions, config, scratch).run();
  });
  std::vector<Positive> all;
  for (const auto& part : of_image) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace tessera
