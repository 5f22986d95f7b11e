#include "yolo/train/train_step.h"

#include <cstring>
#include <span>

#include "nn/layers/batch_norm2d.h"
#include "nn/rounded_weights.h"
#include "tensor/augment.h"
#include "tensor/backend.h"
#include "tensor/base/scope.h"
#include "tensor/ops/pool.h"

namespace tessera {

namespace {

// Places of a batch's tensors in a parcel of the upload ring. The last two are there instead of kImages where the device makes the
// images itself.
enum Part : size_t { kBoxes, kClasses, kMaskIds, kMasks, kImages, kTiles = kImages, kAugmentItems };

// Copies into the same memory as long as the shape stays, for the sake of recorded steps.
void copy_into(Tensor& lasting, const Tensor& from) {
  if (lasting.defined() && lasting.shape() == from.shape()) {
    lasting.copy_from(from);
  } else {
    lasting = from.clone();
  }
}

// Of anything that lies in one piece.
template <class Values>
Tensor bytes_of(const Values& values) {
  const auto bytes = std::as_bytes(std::span(values.data(), values.size()));
  const Tensor copy = Tensor::empty({int64_t(bytes.size())}, DType::kU8);
  std::memcpy(copy.raw(), bytes.data(), bytes.size());
  return copy;
}

}  // namespace

TrainStep::TrainStep(YoloSeg& model, const SegmentationLoss& loss, DataParallel& ranks, WeightUpdate& update, StepReplay replay,
                     bool own_statistics)
    : model_(model), loss_(loss), ranks_(ranks), update_(update), replay_(std::move(replay)), own_statistics_(own_statistics) {
  feedback_ = Tensor::zeros({LossResult::kSums + kUpdateSlots}, DType::kF64, model.device());
  model.for_each_module([&](const std::string&, Module& m) {
    if (auto* bn = dynamic_cast<BatchNorm2d*>(&m)) norms_.push_back(bn);
  });
}

void TrainStep::release() {
  replay_.release();
  ring_.reset();
  uploading_.clear();
  images_ = {};
  targets_ = {};
}

// --- the batch -----------------------------------------------------------------------------------------------------------------

TrainStep::Prepared TrainStep::prepare(const Batch& batch) const {
  const Device device = model_.device();
  Prepared p{loss_.prepare_targets(batch, batch.size(), batch.input_height(), batch.input_width(), device),
             {batch.size(), batch.height(), batch.width(), 3},
             batch.tiles.has_value()};
  // Checked here, on the host: neither a replayed loss nor a kernel looks at these.
  TESSERA_CHECK(p.targets.objects.largest_class < model_.nc(), "a target of class {}, the model has {}",
                p.targets.objects.largest_class, model_.nc());
  if (batch.tiles) check_items(batch.tiles->items, int64_t(batch.tiles->bytes.size()), batch.height(), batch.width());
  return p;
}

void TrainStep::prefetch(const Batch& batch) {
  if (model_.device() == Device::cpu()) return;
  const ScopeGuard scope(this);
  if (!ring_) ring_ = backend_for(model_.device()).upload_ring();
  Prepared p = prepare(batch);
  PaddedTargets& objects = p.targets.objects;
  std::vector<Tensor> parts = {objects.boxes, objects.classes, objects.mask_ids, p.targets.masks};  // in the order of Part
  if (batch.tiles) {
    parts.push_back(bytes_of(batch.tiles->bytes));
    parts.push_back(bytes_of(batch.tiles->items));
  } else {
    parts.push_back(batch.images);
  }
  ring_->send(parts);
  objects.boxes = objects.classes = objects.mask_ids = p.targets.masks = {};
  uploading_.push_back(std::move(p));
}

void TrainStep::bring_over(const Batch& batch) {
  if (model_.device() == Device::cpu()) {
    targets_ = prepare(batch).targets;
    images_ = batch.images;
    return;
  }
  if (uploading_.empty()) prefetch(batch);
  take_upload();
}

void TrainStep::take_upload() {
  const ScopeGuard scope(this);
  const std::vector<Tensor> parts = ring_->take();
  const Prepared p = std::move(uploading_.front());
  uploading_.pop_front();
  copy_into(targets_.objects.boxes, parts[kBoxes]);
  copy_into(targets_.objects.classes, parts[kClasses]);
  copy_into(targets_.objects.mask_ids, parts[kMaskIds]);
  copy_into(targets_.masks, parts[kMasks]);
  targets_.objects.largest_class = p.targets.objects.largest_class;
  targets_.overlap = p.targets.overlap;
  targets_.height = p.targets.height;
  targets_.width = p.targets.width;
  if (!p.from_tiles) return copy_into(images_, parts[kImages]);
  if (!images_.defined() || images_.shape() != p.images) images_ = Tensor::empty(p.images, DType::kU8, model_.device());
  augment_images(parts[kAugmentItems], parts[kTiles], images_);
}

// --- the step ------------------------------------------------------------------------------------------------------------------

Variable TrainStep::network_input() const {
  const int64_t h = targets_.height, w = targets_.width;
  if (images_.size(1) == h && images_.size(2) == w) return Variable(images_);
  const ScopeGuard scope(this);
  return Variable(ops::resize_bilinear(normalize(images_, DType::kF32).data(), h, w));
}

void TrainStep::compute() {
  const RoundedWeights rounded(update_.arena(), model_.compute_type());
  const LossResult loss = loss_(model_.forward(network_input()), targets_);
  ranks_.backward(loss.total, update_.loss_seed());
  if (own_statistics_) ranks_.broadcast_buffers();
  if (with_update_) {
    const ScopeGuard scope(&update_);
    update_.run();
  }
  loss.write_sums(feedback_.narrow(0, 0, LossResult::kSums));
  feedback_.narrow(0, LossResult::kSums, kUpdateSlots).copy_from(update_.state());
}

void TrainStep::start(const Batch& batch, const ScheduleValues& values, bool with_update) {
  bring_over(batch);
  update_.set(values.lr, values.momentum);
  with_update_ = with_update;
  repeat();
  if (model_.device() == Device::cpu()) images_ = targets_.masks = {};  // they belong to the batch
}

void TrainStep::repeat() {
  // A batch norm counts its batches on the host. Of compute(), what happens on the host happens when it is called and when it is
  // recorded, but not when it is replayed; so the counters are set here, to one more whichever it was.
  std::vector<int64_t> batches_before;
  for (const BatchNorm2d* norm : norms_) batches_before.push_back(*norm->num_batches_tracked.data<int64_t>());
  const Shape& masks = targets_.masks.defined() ? targets_.masks.shape() : Shape{};
  const std::string shapes = fmt::format("{} {}x{} {} {} {}", to_string(images_.shape()), targets_.height, targets_.width,
                                         to_string(targets_.objects.boxes.shape()), to_string(masks), targets_.overlap);
  ran_ = replay_.run(shapes, with_update_, [&] { compute(); });
  for (size_t i = 0; i < norms_.size(); ++i) {
    *norms_[i]->num_batches_tracked.data<int64_t>() = batches_before[i] + norms_[i]->training();
  }
}

StepResult TrainStep::finish() {
  ranks_.wait();
  const std::vector<double> feedback = feedback_.to_vector<double>();
  StepResult result;
  result.ran = ran_;
  result.loss = LossResult::report_of(feedback.data(), loss_.gains());
  if (with_update_) result.update = update_.report(feedback.data() + LossResult::kSums);
  return result;
}

StepResult TrainStep::run(const Batch& batch, const ScheduleValues& values, bool with_update) {
  start(batch, values, with_update);
  return finish();
}

}  // namespace tessera
