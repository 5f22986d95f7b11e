#include "yolo/train/loss.h"

#include <algorithm>
#include <cmath>

#include "autograd/functions/concat.h"
#include "autograd/functions/index.h"
#include "autograd/functions/loss.h"
#include "autograd/functions/matmul.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/shape.h"
#include "autograd/functions/softmax.h"
#include "tensor/base/parallel.h"
#include "tensor/base/scope.h"
#include "tensor/ops/index.h"

namespace tessera {

namespace {

constexpr float kMaxDistance = float(kDistanceBins) - 1 - 0.01f;  // both bins around a target distance exist

// Everything about one batch that the four terms share. Assignment and targets are work for the host: box and class maps of a device
// are fetched for it, and what it makes, a few rows for each positive, goes to the device.
struct Context {
  const RawOutputs& outputs;
  const Batch& batch;
  Anchors anchors;
  PaddedTargets targets;
  std::vector<Positive> positives;  // ordered by level, then image, then anchor
  std::array<size_t, kLevels + 1> level_first{};
  int64_t images, height, width;

  Device device() const { return outputs.prototypes.data().device(); }

  // Row of a level's map, seen as (N * h * w, channels).
  int64_t row(const Positive& p, int level) const {
    const int64_t first = anchors.first[size_t(level)];
    return p.image * (anchors.first[size_t(level) + 1] - first) + p.anchor - first;
  }
};

// Expectation of the four distances, then the corners: the no-gradient counterpart of predicted_boxes(), for one anchor.
std::array<float, 4> decode_box(const float* logits, float x, float y, float stride) {
  std::array<float, 4> distance{};
  for (size_t side = 0; side < 4; ++side) {
    const float* bins = logits + side * kDistanceBins;
    const float largest = *std::max_element(bins, bins + kDistanceBins);
    float sum = 0, weighted = 0;
    for (int64_t b = 0; b < kDistanceBins; ++b) {
      const float e = std::exp(bins[b] - largest);
      sum += e;
      weighted += e * float(b);
    }
    distance[side] = weighted / sum * stride;
  }
  return {x - distance[0], y - distance[1], x + distance[2], y + distance[3]};
}

void assign(Context& c) {
  std::array<Tensor, kLevels> box, cls;
  const int64_t nc = c.outputs.cls[0].size(3);
  for (size_t i = 0; i < kLevels; ++i) {
    box[i] = c.outputs.box[i].data().to(Device::cpu()).contiguous();
    cls[i] = c.outputs.cls[i].data().to(Device::cpu()).contiguous();
  }
  for (int32_t id : c.targets.classes) TESSERA_CHECK(id >= 0 && id < nc, "loss: target of class {}, the model has {}", id, nc);
  const auto row = [&c](int64_t image, int64_t anchor, int level) { return c.row({int32_t(image), int32_t(anchor), 0, 0}, level); };
  const Predictions predictions{
      [&](int64_t image, int64_t anchor, int32_t class_id) {
        const int level = c.anchors.level(anchor);
        return 1.0f / (1.0f + std::exp(-cls[size_t(level)].data<float>()[row(image, anchor, level) * nc + class_id]));
      },
      [&](int64_t image, int64_t anchor) {
        const int level = c.anchors.level(anchor);
        const size_t a = size_t(anchor);
        const float* logits = box[size_t(level)].data<float>() + row(image, anchor, level) * kBoxLogits;
        return decode_box(logits, c.anchors.x[a], c.anchors.y[a], c.anchors.stride[a]);
      }};
  c.positives = assign_targets(c.targets, c.anchors, predictions);
  const auto level_of = [&c](const Positive& p) { return c.anchors.level(p.anchor); };
  std::stable_sort(c.positives.begin(), c.positives.end(),
                   [&](const Positive& a, const Positive& b) { return level_of(a) < level_of(b); });
  for (const Positive& p : c.positives) ++c.level_first[size_t(level_of(p)) + 1];
  for (size_t i = 0; i < kLevels; ++i) c.level_first[i + 1] += c.level_first[i];
}

// Sum of the cross-entropy of every class of every anchor against the target scores.
Variable class_sum(const Context& c) {
  Variable sum;
  for (size_t level = 0; level < kLevels; ++level) {
    const Variable& logits = c.outputs.cls[level];
    const size_t first = c.level_first[level], n = c.level_first[level + 1] - first;
    const Tensor target = Tensor::zeros(logits.shape(), DType::kF32, c.device());
    if (n > 0) {  // scattered, so that a device gets the scores and not the map; an anchor has one target, so none meet
      std::vector<int64_t> at(n);
      std::vector<float> score(n);
      for (size_t i = 0; i < n; ++i) {
        const Positive& p = c.positives[first + i];
        at[i] = c.row(p, int(level)) * logits.size(3) + c.targets.classes[c.targets.at(p.image, p.target)];
        score[i] = p.score;
      }
      ops::scatter_add_rows(Tensor::from_vector(score, {int64_t(n), 1}).to(c.device()),
                            Tensor::from_vector(at, {int64_t(n)}).to(c.device()), target.view({-1, 1}));
    }
    const Variable part = ag::bce_with_logits(logits, target);
    sum = sum.defined() ? ag::add(sum, part) : part;
  }
  return sum;
}

// The rows of the positives, (P, channels), in their order.
Variable gather(const Context& c, const std::array<Variable, kLevels>& maps) {
  std::vector<Variable> parts;
  for (size_t level = 0; level < kLevels; ++level) {
    const size_t first = c.level_first[level], n = c.level_first[level + 1] - first;
    if (n == 0) continue;
    const Tensor index = Tensor::empty({int64_t(n)}, DType::kI64);
    for (size_t i = 0; i < n; ++i) index.data<int64_t>()[i] = c.row(c.positives[first + i], int(level));
    parts.push_back(ag::gather_rows(maps[level], index.to(c.device())));
  }
  return parts.size() == 1 ? parts[0] : ag::concat(parts, 0);
}

// What the box terms compare with, one row for each positive, in grid units of its level.
struct BoxTargets {
  Tensor anchors;    // (P, 4): x, y, x, y of the anchor
  Tensor corners;    // (P, 4)
  Tensor distances;  // (P, 4): left, top, right, bottom, held inside the bins
  Tensor weights;    // (P): target score
};

BoxTargets box_targets(const Context& c) {
  const int64_t n = int64_t(c.positives.size());
  const BoxTargets t{Tensor::empty({n, 4}), Tensor::empty({n, 4}), Tensor::empty({n, 4}), Tensor::empty({n})};
  for (int64_t i = 0; i < n; ++i) {
    const Positive& p = c.positives[size_t(i)];
    const size_t a = size_t(p.anchor);
    const float stride = c.anchors.stride[a];
    const std::array<float, 2> at{c.anchors.x[a] / stride, c.anchors.y[a] / stride};
    const std::array<float, 4>& box = c.targets.boxes[c.targets.at(p.image, p.target)];
    for (size_t k = 0; k < 4; ++k) {
      const int64_t j = i * 4 + int64_t(k);
      const float corner = box[k] / stride;
      t.anchors.data<float>()[j] = at[k % 2];
      t.corners.data<float>()[j] = corner;
      t.distances.data<float>()[j] = std::clamp(k < 2 ? at[k] - corner : corner - at[k % 2], 0.0f, kMaxDistance);
    }
    t.weights.data<float>()[i] = p.score;
  }
  return {t.anchors.to(c.device()), t.corners.to(c.device()), t.distances.to(c.device()), t.weights.to(c.device())};
}

// (P, 64) logits to corners (P, 4) in grid units: anchor -+ expectation over the bins.
Variable predicted_boxes(const Variable& logits, const Tensor& anchors) {
  const Tensor bins = Tensor::empty({kDistanceBins, 1});
  for (int64_t b = 0; b < kDistanceBins; ++b) bins.data<float>()[b] = float(b);
  const Variable probabilities = ag::softmax(ag::view(logits, {logits.size(0) * 4, kDistanceBins}));
  const Variable distances = ag::view(ag::matmul(probabilities, Variable(bins.to(anchors.device()))), {logits.size(0), 4});
  const Variable outwards(Tensor::from_floats({-1, -1, 1, 1}, {4}).to(anchors.device()));
  return ag::add(Variable(anchors), ag::multiply(distances, outwards));
}

Variable mask_sum(const Context& c) {
  const Variable& prototypes = c.outputs.prototypes;
  const int64_t mh = prototypes.size(1), mw = prototypes.size(2);
  const float w = float(c.width), h = float(c.height);
  auto items = std::make_shared<ag::MaskLossTargets>();
  items->overlap = c.batch.overlap;
  for (const Positive& p : c.positives) {
    const size_t at = c.targets.at(p.image, p.target);
    const std::array<float, 4>& box = c.targets.boxes[at];
    const std::array<float, 4> b{box[0] / w, box[1] / h, box[2] / w, box[3] / h};
    items->image.push_back(p.image);
    items->target.push_back(c.batch.overlap ? p.target + 1 : c.targets.source[at]);
    for (size_t k = 0; k < 4; ++k) items->boxes.push_back(b[k] * float(k % 2 == 0 ? mw : mh));
    // A box without area has no pixels either: its term is 0 here, where the original divides 0 by 0.
    const float area = (b[2] - b[0]) * (b[3] - b[1]);
    items->area.push_back(area > 0 ? area : 1.0f);
  }
  const Tensor& masks = c.batch.masks;
  TESSERA_CHECK(masks.defined() && masks.rank() == 3, "loss: {} targets without masks", c.batch.targets.size());
  const bool fits = masks.size(1) == mh && masks.size(2) == mw;
  return ag::mask_loss(gather(c, c.outputs.coefficients), prototypes, (fits ? masks : resize_masks(masks, mh, mw)).to(c.device()),
                       items);
}

}  // namespace

LossResult SegmentationLoss::operator()(const RawOutputs& outputs, const Batch& batch) const {
  const ScopeGuard scope(this);
  std::array<std::array<int64_t, 2>, kLevels> maps{};
  for (size_t i = 0; i < kLevels; ++i) maps[i] = {outputs.box[i].size(1), outputs.box[i].size(2)};
  const int64_t n = outputs.box[0].size(0), h = maps[0][0] * strides_[0], w = maps[0][1] * strides_[0];
  Context c{outputs, batch, make_anchors(maps, h), pad_targets(batch.targets, batch.target_image, n, h, w), {}, {}, n, h, w};
  assign(c);

  LossResult result;
  result.positives = int64_t(c.positives.size());
  for (const Positive& p : c.positives) result.target_score_sum += p.score;
  const double norm = std::max(result.target_score_sum, 1.0);
  // Adds gain * sum / divisor to the total and returns it.
  const auto term = [&](const Variable& sum, double gain, double divisor) {
    const Variable scaled = ag::scale(sum, gain / divisor * double(n));
    result.total = result.total.defined() ? ag::add(result.total, scaled) : scaled;
    return gain * sum.data().item() / divisor;
  };
  result.items.cls = term(class_sum(c), gains_.cls, norm);
  if (c.positives.empty()) return result;
  const BoxTargets targets = box_targets(c);
  const Variable logits = gather(c, outputs.box);
  result.items.box =
      term(ag::ciou_loss(predicted_boxes(logits, targets.anchors), targets.corners, targets.weights), gains_.box, norm);
  result.items.dfl = term(ag::dfl_loss(logits, targets.distances, targets.weights), gains_.dfl, norm);
  result.items.seg = term(mask_sum(c), gains_.box, double(result.positives));
  return result;
}

Tensor resize_masks(const Tensor& masks, int64_t height, int64_t width) {
  const int64_t planes = masks.size(0), h = masks.size(1), w = masks.size(2);
  const Tensor out = Tensor::empty({planes, height, width}, DType::kI32);
  const int32_t* from = masks.data<int32_t>();
  int32_t* to = out.data<int32_t>();
  parallel_chunks(planes, [&](int64_t plane) {
    for (int64_t y = 0; y < height; ++y) {
      const int32_t* row = from + (plane * h + y * h / height) * w;
      for (int64_t x = 0; x < width; ++x) to[(plane * height + y) * width + x] = row[x * w / width];
    }
  });
  return out;
}

}  // namespace tessera
