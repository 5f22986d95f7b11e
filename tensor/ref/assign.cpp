// Task-aligned assignment. In f32 as the original's, whose choices it has to make; one image after the other.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/ops/assign_math.h"
#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {

using namespace assign_math;

struct Candidate {
  int32_t anchor;
  float metric, overlap;
};

// What one image knows of each anchor while its objects are visited in order. Reused from call to call.
struct Scratch {
  std::vector<Candidate> candidates;      // anchors inside the box at hand
  std::vector<std::array<float, 4>> box;  // predicted, where known
  std::vector<float> angle;               // of the predicted box; NaN: not asked for yet
  std::vector<int32_t> picks;             // objects that chose the anchor
  std::vector<int32_t> target;            // the first of them
  std::vector<Candidate> chosen;          // metric and overlap with it
  std::vector<int32_t> best_target;       // object with the largest overlap, lowest index first; 0 when all are 0
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

// What a level is to an image: its anchors are first .. first + w h of the image's, in order of (y, x).
struct ImageLevel {
  const AnchorLevel* level;
  int32_t first;
  int64_t row;  // of its first anchor, in the level's maps
};

class ImageAssigner {
 public:
  ImageAssigner(const AssignInput& in, const AssignParams& params, int64_t image, Scratch& scratch)
      : in_(in), params_(params), boxes_(in.boxes + image * in.width * 4), classes_(in.classes + image * in.width), s_(scratch) {
    for (size_t i = 0; i < kAnchorLevels; ++i) {
      const AnchorLevel& level = in.levels[i];
      levels_[i] = {&level, count_, image * level.h * level.w};
      count_ += int32_t(level.h * level.w);
    }
  }

  void run() {
    s_.reset(size_t(count_));
    for (int64_t g = 0; g < in_.width; ++g) {
      if (classes_[g] >= 0) visit(g);
    }
  }

  // Contested anchors go to the object they overlap most; scores are normalised for each object.
  // write(level, row in the level's maps, object or -1, score)
  template <class F>
  void results(F&& write) const {
    std::vector<float> largest_metric(size_t(in_.width), 0.0f), largest_overlap(size_t(in_.width), 0.0f);
    for (size_t i = 0; i < size_t(count_); ++i) {
      if (s_.picks[i] == 0) continue;
      const auto [g, c] = outcome(i);
      largest_metric[size_t(g)] = std::max(largest_metric[size_t(g)], c.metric);
      largest_overlap[size_t(g)] = std::max(largest_overlap[size_t(g)], c.overlap);
    }
    for (size_t l = 0; l < kAnchorLevels; ++l) {
      const int64_t cells = levels_[l].level->h * levels_[l].level->w;
      for (int64_t cell = 0; cell < cells; ++cell) {
        const size_t i = size_t(levels_[l].first + cell);
        if (s_.picks[i] == 0) {
          write(int(l), levels_[l].row + cell, -1, 0.0f);
          continue;
        }
        const auto [g, c] = outcome(i);
        write(int(l), levels_[l].row + cell, g, c.metric * largest_overlap[size_t(g)] / (largest_metric[size_t(g)] + kNormEps));
      }
    }
  }

 private:
  void visit(int64_t g) {
    const float* gt = boxes_ + 4 * g;
    const float gt_angle = box_angle(gt);
    s_.candidates.clear();
    for (const ImageLevel& l : levels_) {
      const int w = int(l.level->w), h = int(l.level->h);
      const float stride = l.level->stride;
      const int x0 = first_inside(gt[0], w, stride), x1 = end_inside(gt[2], w, stride);
      const int y0 = first_inside(gt[1], h, stride), y1 = end_inside(gt[3], h, stride);
      for (int y = y0; y < y1; ++y) {
        for (int x = x0; x < x1; ++x) s_.candidates.push_back(candidate(g, gt, gt_angle, l, x, y));
      }
    }
    pick(g);
  }

  Candidate candidate(int64_t g, const float* gt, float gt_angle, const ImageLevel& l, int x, int y) {
    const int64_t cell = int64_t(y) * l.level->w + x;
    const size_t i = size_t(l.first + cell);
    if (std::isnan(s_.angle[i])) {
      s_.box[i] = predicted(l, l.row + cell, x, y);
      s_.angle[i] = box_angle(s_.box[i].data());
    }
    const float overlap = larger(ciou(gt, s_.box[i].data(), gt_angle, s_.angle[i]), 0.0f);
    const float raw = ref::row<const float>(l.level->cls, l.row + cell)[classes_[g]];
    const float score = in_.decoded ? raw : score_of_logit(raw);
    const Candidate c{int32_t(i), std::pow(score, params_.alpha) * std::pow(overlap, params_.beta), overlap};
    if (overlap > s_.best[i].overlap) {
      s_.best[i] = c;
      s_.best_target[i] = int32_t(g);
    }
    return c;
  }

  std::array<float, 4> predicted(const ImageLevel& l, int64_t row, int x, int y) const {
    const float* p = ref::row<const float>(l.level->box, row);
    if (in_.decoded) return {p[0], p[1], p[2], p[3]};
    const int bins = int(l.level->box.cols / 4);
    const float stride = l.level->stride, ax = anchor_at(x, stride), ay = anchor_at(y, stride);
    return {ax - expected_bin(p, bins) * stride, ay - expected_bin(p + bins, bins) * stride,
            ax + expected_bin(p + 2 * bins, bins) * stride, ay + expected_bin(p + 3 * bins, bins) * stride};
  }

  // The topk largest metrics of all anchors, lowest index first among equals. Anchors outside the box have metric 0 and never
  // become positive, but take places when fewer than topk metrics are above 0.
  void pick(int64_t g) {
    auto& c = s_.candidates;
    const auto zeros = std::partition(c.begin(), c.end(), [](const Candidate& x) { return x.metric > 0; });
    const size_t k = std::min(size_t(params_.topk), size_t(zeros - c.begin()));
    std::partial_sort(c.begin(), c.begin() + int64_t(k), zeros, [](const Candidate& a, const Candidate& b) {
      return a.metric != b.metric ? a.metric > b.metric : a.anchor < b.anchor;
    });
    for (size_t i = 0; i < k; ++i) choose(g, c[i]);
    int64_t places = params_.topk - int64_t(k);
    if (places <= 0 || zeros == c.end()) return;
    std::sort(c.begin(), zeros, [](const Candidate& a, const Candidate& b) { return a.anchor < b.anchor; });
    std::sort(zeros, c.end(), [](const Candidate& a, const Candidate& b) { return a.anchor < b.anchor; });
    auto above = c.begin();
    auto zero = zeros;
    for (int32_t a = 0; a < count_ && places > 0; ++a) {
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

  std::pair<int32_t, Candidate> outcome(size_t i) const {
    return s_.picks[i] > 1 ? std::pair{s_.best_target[i], s_.best[i]} : std::pair{s_.target[i], s_.chosen[i]};
  }

  const AssignInput& in_;
  const AssignParams& params_;
  const float* boxes_;
  const int32_t* classes_;
  Scratch& s_;
  std::array<ImageLevel, kAnchorLevels> levels_{};
  int32_t count_ = 0;
};

}  // namespace

void RefBackend::assign_image(const AssignInput& in, const AssignParams& params, int64_t image, int32_t* target, float* score) {
  static thread_local Scratch scratch;
  ImageAssigner assigner(in, params, image, scratch);
  assigner.run();
  assigner.results([&](int level, int64_t row, int32_t object, float value) {
    target[in.first_row(level) + row] = object;
    score[in.first_row(level) + row] = value;
  });
}

void RefBackend::assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) {
  for (int64_t image = 0; image < in.images; ++image) assign_image(in, params, image, target, score);
}

void RefBackend::collect_positives(const AssignInput& in, const int32_t* mask_ids, const int32_t* target, const float* score,
                                   const PositivesParams& params, const PositivesView& out) {
  const float image_w = float(params.image_width), image_h = float(params.image_height);
  const float mask_w = float(params.mask_width), mask_h = float(params.mask_height);
  std::fill(out.index, out.index + kAnchorLevels * out.capacity, int64_t{-1});
  std::fill(out.label, out.label + in.rows(), -1);
  int64_t n = 0;
  double sum = 0;
  for (int l = 0; l < kAnchorLevels; ++l) {
    const AnchorLevel& level = in.levels[size_t(l)];
    const int64_t first = in.first_row(l), cells = level.h * level.w;
    for (int64_t row = 0; row < in.images * cells; ++row) {
      const int32_t g = target[first + row];
      if (g < 0) continue;
      TESSERA_DCHECK(n < out.capacity, "collect_positives: more positives than the capacity {}", out.capacity);
      const int64_t image = row / cells, cell = row % cells, object = image * in.width + g;
      const float* box = in.boxes + 4 * object;
      const float value = score[first + row];
      const std::array<float, 2> at{anchor_at(int(cell % level.w), level.stride) / level.stride,
                                    anchor_at(int(cell / level.w), level.stride) / level.stride};
      const std::array<float, 4> part{box[0] / image_w, box[1] / image_h, box[2] / image_w, box[3] / image_h};  // of the image
      for (size_t k = 0; k < 4; ++k) {
        const float corner = box[k] / level.stride;
        out.anchors[4 * n + int64_t(k)] = at[k % 2];
        out.corners[4 * n + int64_t(k)] = corner;
        out.distances[4 * n + int64_t(k)] = std::clamp(k < 2 ? at[k] - corner : corner - at[k % 2], 0.0f, params.max_distance);
        out.mask_boxes[4 * n + int64_t(k)] = part[k] * (k % 2 == 0 ? mask_w : mask_h);
      }
      // A box without area has no pixels either: its term is 0 here, where the original divides 0 by 0.
      const float area = (part[2] - part[0]) * (part[3] - part[1]);
      out.area[n] = area > 0 ? area : 1.0f;
      out.index[l * out.capacity + n] = row;
      out.weights[n] = value;
      out.image[n] = int32_t(image);
      out.mask[n] = mask_ids[object];
      // An anchor without any overlap may have gone to an object that is none, whose class is -1.
      out.label[first + row] = in.classes[object];
      sum += value;
      ++n;
    }
  }
  for (float* rows : {out.anchors, out.corners, out.distances, out.mask_boxes})
    std::fill(rows + 4 * n, rows + 4 * out.capacity, 0.0f);
  std::fill(out.weights + n, out.weights + out.capacity, 0.0f);
  std::fill(out.area + n, out.area + out.capacity, 1.0f);
  for (int32_t* rows : {out.image, out.mask}) std::fill(rows + n, rows + out.capacity, 0);
  out.totals[0] = sum;
  out.totals[1] = double(n);
  for (size_t k = 0; k < 4; ++k)
    out.scales[k] = float(params.gains[k] / std::max(k < 3 ? sum : double(n), 1.0) * double(in.images));
}

}  // namespace tessera
