#include "yolo/train/loss.h"

#include <algorithm>

#include "autograd/functions/concat.h"
#include "autograd/functions/index.h"
#include "autograd/functions/loss.h"
#include "autograd/functions/matmul.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/shape.h"
#include "autograd/functions/softmax.h"
#include "tensor/base/parallel.h"
#include "tensor/base/scope.h"
#include "tensor/ops/assign.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/reduce.h"

namespace tessera {

namespace {

constexpr float kMaxDistance = float(kDistanceBins) - 1 - 0.01f;  // both bins around a target distance exist
constexpr AssignParams kAssign;

ops::AnchorMaps maps_of(const RawOutputs& outputs, int64_t image_height) {
  ops::AnchorMaps maps;
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    maps.box[i] = outputs.box[i].data();
    maps.cls[i] = outputs.cls[i].data();
    maps.strides[i] = float(image_height / maps.box[i].size(1));
  }
  return maps;
}

// Keeps the first rows, the positives; those behind them weigh nothing.
void drop_padding_rows(ops::Positives& p, int64_t rows) {
  p.index = p.index.narrow(1, 0, rows).contiguous();
  for (Tensor* t : {&p.anchors, &p.corners, &p.distances, &p.weights, &p.image, &p.mask, &p.mask_boxes, &p.area}) {
    *t = t->narrow(0, 0, rows);
  }
}

// The scales of ops::PositivesView, with images, scores and positives summed over all ranks, times the number of ranks.
void scale_over_host(ops::Positives& p, int64_t images, const std::array<double, 4>& gains, Communicator& ranks) {
  struct Part {
    double score_sum, positives, images;
  };
  const std::vector<double> own = p.totals.to_vector<double>();
  Part all{};
  for (const Part& part : ranks.all_gather(Part{own[0], own[1], double(images)}, "the loss's totals")) {
    all.score_sum += part.score_sum, all.positives += part.positives, all.images += part.images;
  }
  std::vector<float> scales;
  for (size_t k = 0; k < gains.size(); ++k) {
    scales.push_back(float(gains[k] / std::max(k < 3 ? all.score_sum : all.positives, 1.0) * all.images * double(ranks.size())));
  }
  p.scales.copy_from(Tensor::from_vector(scales, {4}));
}

// The same without the host, as calls on the device's stream, in f32.
void scale_in_stream(ops::Positives& p, int64_t images, const Tensor& gains, Communicator& ranks) {
  const Tensor own = Tensor::empty({3}, DType::kF32, gains.device());
  own.narrow(0, 0, 2).copy_from(p.totals);
  own.narrow(0, 2, 1).fill(double(images));
  const Tensor all = ops::reduce(ReduceOp::kSum, ranks.all_gather(own, "the loss's totals"), {0});
  const Tensor divisors = Tensor::full({4}, 1, DType::kF32, gains.device());
  const auto at_least_one = [&](int64_t total, int64_t first, int64_t count) {
    const Tensor d = divisors.narrow(0, first, count);
    d.copy_from(ops::binary(BinaryOp::kMaximum, all.narrow(0, total, 1), d));
  };
  at_least_one(0, 0, 3);
  at_least_one(1, 3, 1);
  p.scales.copy_from(ops::binary(BinaryOp::kDivide, ops::binary(BinaryOp::kMultiply, gains, all.narrow(0, 2, 1)), divisors));
}

// The sum of terms[k] scales[k]. The terms lie side by side in memory, so that joining them copies nothing.
Variable weighted_sum(const std::vector<Variable>& terms, const Tensor& scales) {
  const auto n = int64_t(terms.size());
  const Variable row = ag::view(ag::concat_channels(terms), {1, n});
  return ag::view(ag::matmul(row, Variable(scales.narrow(0, 0, n).view({n, 1}))), {});
}

// Corners (P, 4) in strides from logits (P, 64): anchor -+ distance, each distance being the expectation over its 16 bins.
Variable predicted_boxes(const Variable& logits, const Tensor& anchors, const Tensor& bins, const Tensor& outwards) {
  const Variable probabilities = ag::softmax(ag::view(logits, {logits.size(0) * 4, kDistanceBins}));
  const Variable distances = ag::view(ag::matmul(probabilities, Variable(bins)), {logits.size(0), 4});
  return ag::add(Variable(anchors), ag::multiply(distances, Variable(outwards)));
}

// The batch's masks in the size of the prototypes; undefined without targets.
Tensor masks_of(const Batch& batch, int64_t height, int64_t width) {
  if (!batch.masks.defined() || batch.targets.empty()) return {};
  TESSERA_CHECK(batch.masks.rank() == 3, "loss: got masks {}, expected (planes, height, width)", describe(batch.masks));
  const bool fits = batch.masks.size(1) == height && batch.masks.size(2) == width;
  return fits ? batch.masks : resize_masks(batch.masks, height, width);
}

// The masks, then planes of zeros up to `shape`; the masks themselves where there are as many.
Tensor with_empty_planes(const Tensor& masks, const Shape& shape) {
  const int64_t planes = masks.defined() ? masks.size(0) : 0;
  if (planes >= shape[0]) return masks;
  const Tensor all = Tensor::zeros(shape, DType::kI32);
  if (planes > 0) all.narrow(0, 0, planes).copy_from(masks);
  return all;
}

int64_t doubled_to(int64_t room, int64_t needed) {
  while (room < needed) room *= 2;
  return room;
}

Variable mask_sum(const RawOutputs& outputs, const LossTargets& targets, const ops::Positives& positives, const Tensor& into) {
  TESSERA_CHECK(targets.masks.defined(), "loss: targets without masks");
  const ag::MaskLossTargets items{positives.image, positives.mask, positives.mask_boxes, positives.area, targets.overlap};
  return ag::mask_loss(ag::gather_rows(outputs.coefficients, positives.index), outputs.prototypes, targets.masks, items, into);
}

}  // namespace

LossTargets SegmentationLoss::prepare_targets(const Batch& batch, int64_t images, int64_t height, int64_t width,
                                              Device device) const {
  const auto padded_to = [&](int64_t room) {
    return pad_targets(batch.targets, batch.target_image, batch.overlap, images, height, width, room);
  };
  const int64_t mask_height = 2 * height / strides_[0], mask_width = 2 * width / strides_[0];  // of the prototypes
  LossTargets t;
  t.masks = masks_of(batch, mask_height, mask_width);
  t.overlap = batch.overlap;
  t.height = height;
  t.width = width;

  if (device == Device::cpu()) {
    t.objects = padded_to(several_ranks() ? 1 : 0);
    // A rank without targets has the same graph as the others, and its one row has to read a mask.
    if (several_ranks() && !t.masks.defined()) {
      t.masks = Tensor::zeros({images, mask_height, mask_width}, DType::kI32);
      t.overlap = true;
    }
    return t;
  }

  t.objects = padded_to(room_);
  if (const int64_t fullest = t.objects.classes.size(1); fullest > room_) {
    room_ = doubled_to(room_, fullest);
    t.objects = padded_to(room_);
  }
  if (!t.overlap && t.masks.defined()) mask_room_ = doubled_to(mask_room_, t.masks.size(0));
  t.masks = with_empty_planes(t.masks, {t.overlap ? images : mask_room_, mask_height, mask_width});
  return t;
}

LossTargets SegmentationLoss::upload_targets(const Batch& batch, int64_t images, int64_t height, int64_t width,
                                             Device device) const {
  LossTargets t = prepare_targets(batch, images, height, width, device);
  for (Tensor* part : {&t.objects.boxes, &t.objects.classes, &t.objects.mask_ids, &t.masks}) {
    if (part->defined()) *part = part->to(device);
  }
  return t;
}

const SegmentationLoss::Constants& SegmentationLoss::constants(Device device) const {
  if (!constants_ || constants_->bins.device() != device) {
    const Tensor bins = Tensor::empty({kDistanceBins, 1});
    for (int64_t b = 0; b < kDistanceBins; ++b) bins.data<float>()[b] = float(b);
    const Tensor gains = Tensor::empty({4});
    for (size_t k = 0; k < 4; ++k) gains.data<float>()[k] = float(gains_of_terms()[k] * (several_ranks() ? ranks_->size() : 1));
    constants_ = {bins.to(device), Tensor::from_floats({-1, -1, 1, 1}, {4}).to(device), gains.to(device)};
  }
  return *constants_;
}

LossResult SegmentationLoss::operator()(const RawOutputs& outputs, const LossTargets& targets) const {
  const ScopeGuard scope(this);
  const PaddedTargets& objects = targets.objects;
  const Device device = outputs.prototypes.data().device();
  const int64_t nc = outputs.cls[0].size(3);
  TESSERA_CHECK(objects.largest_class < nc, "loss: target of class {}, the model has {}", objects.largest_class, nc);

  const ops::AnchorMaps maps = maps_of(outputs, targets.height);
  const ops::Assignment assignment = ops::assign(maps, objects.boxes, objects.classes, kAssign);
  ops::Positives positives = collect_positives(maps, outputs, targets, assignment);
  if (several_ranks()) scale_over_ranks(positives, objects.boxes.size(0), device);

  LossResult result;
  result.gains = gains_;
  result.totals = positives.totals;
  result.terms = Tensor::empty({LossResult::kTerms}, DType::kF32, device);
  result.total = weighted_sum(terms(outputs, targets, assignment.score, positives, result.terms), positives.scales);
  return result;
}

ops::Positives SegmentationLoss::collect_positives(const ops::AnchorMaps& maps, const RawOutputs& outputs,
                                                   const LossTargets& targets, const ops::Assignment& assignment) const {
  const PaddedTargets& objects = targets.objects;
  PositivesParams params;
  params.max_distance = kMaxDistance;
  params.image_height = targets.height;
  params.image_width = targets.width;
  params.mask_height = outputs.prototypes.size(1);
  params.mask_width = outputs.prototypes.size(2);
  params.gains = gains_of_terms();
  // No object takes more anchors than topk, and no anchor is taken twice.
  const int64_t capacity = std::min(assignment.target.numel(), objects.classes.numel() * kAssign.topk);
  return ops::collect_positives(maps, objects.boxes, objects.classes, objects.mask_ids, assignment, params, capacity);
}

void SegmentationLoss::scale_over_ranks(ops::Positives& p, int64_t images, Device device) const {
  if (ranks_->in_stream(device)) {
    scale_in_stream(p, images, constants(device).gains, *ranks_);
  } else {
    scale_over_host(p, images, gains_of_terms(), *ranks_);
  }
}

// Class, box, distance and mask term, each written to its place of `sums`; without positives the class term alone.
std::vector<Variable> SegmentationLoss::terms(const RawOutputs& outputs, const LossTargets& targets, const Tensor& score,
                                              ops::Positives& p, const Tensor& sums) const {
  const Device device = sums.device();
  const auto place = [&](int64_t k) { return sums.narrow(0, k, 1); };
  std::vector<Variable> terms{ag::bce_with_labels(outputs.cls, p.label, score, place(0))};
  if (device == Device::cpu()) {
    const auto positives = int64_t(p.totals.data<double>()[1]);
    drop_padding_rows(p, std::max<int64_t>(positives, several_ranks() ? 1 : 0));  // one row at least: all ranks have one graph
  }
  if (p.weights.numel() == 0) {
    sums.narrow(0, 1, LossResult::kTerms - 1).fill(0);
    return terms;
  }
  const auto& [bins, outwards, gains] = constants(device);
  const Variable logits = ag::gather_rows(outputs.box, p.index);
  terms.push_back(ag::ciou_loss(predicted_boxes(logits, p.anchors, bins, outwards), p.corners, p.weights, place(1)));
  terms.push_back(ag::dfl_loss(logits, p.distances, p.weights, place(2)));
  terms.push_back(mask_sum(outputs, targets, p, place(3)));
  return terms;
}

LossResult SegmentationLoss::operator()(const RawOutputs& outputs, const Batch& batch) const {
  const int64_t h = outputs.box[0].size(1) * strides_[0], w = outputs.box[0].size(2) * strides_[0];
  return (*this)(outputs, upload_targets(batch, outputs.box[0].size(0), h, w, outputs.prototypes.data().device()));
}

void LossResult::write_sums(const Tensor& into) const {
  into.narrow(0, 0, 2).copy_from(totals);
  into.narrow(0, 2, kTerms).copy_from(terms);
}

LossReport LossResult::report() const {
  const Tensor sums = Tensor::empty({kSums}, DType::kF64, totals.device());
  write_sums(sums);
  return report_of(sums.to_vector<double>().data(), gains);
}

LossReport LossResult::report_of(const double* v, const LossGains& gains) {
  LossReport r;
  r.target_score_sum = v[0];
  r.positives = int64_t(v[1]);
  const double norm = std::max(v[0], 1.0);
  r.items.cls = gains.cls * v[2] / norm;
  r.items.box = gains.box * v[3] / norm;
  r.items.dfl = gains.dfl * v[4] / norm;
  r.items.seg = gains.box * v[5] / std::max(v[1], 1.0);
  return r;
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
