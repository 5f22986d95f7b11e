#include "yolo/train/train_step.h"

#include <cstring>

#include "nn/layers/batch_norm2d.h"
#include "nn/rounded_weights.h"
#include "tensor/augment.h"
#include "tensor/backend.h"
#include "tensor/base/scope.h"
#include "tensor/ops/pool.h"

namespace tessera {

namespace {
// Into memory that stays as long as the shape does.
void keep(Tensor& into, const Tensor& from) {
  if (into.defined() && into.shape() == from.shape()) {
    into.copy_from(from);
  } else {
    into = from.clone();
  }
}

Tensor bytes_of(const void* p, size_t count) {
  const Tensor bytes = Tensor::empty({int64_t(count)}, DType::kU8);
  std::memcpy(bytes.raw(), p, count);
  return bytes;
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
  sent_.clear();
  images_ = {};
  targets_ = {};
}

TrainStep::Sent TrainStep::prepare(const Batch& batch) const {
  Sent s{loss_.prepare(batch, batch.size(), batch.input_height(), batch.input_width(), model_.device()),
         {batch.size(), batch.height(), batch.width(), 3},
         batch.tiles.has_value()};
  // A replayed loss does not look, nor does a kernel.
  TESSERA_CHECK(s.targets.objects.largest_class < model_.nc(), "a target of class {}, the model has {}", s.targets.objects.largest_class,
                model_.nc());
  if (batch.tiles) check_items(batch.tiles->items, int64_t(batch.tiles->bytes.size()), batch.height(), batch.width());
  return s;
}

void TrainStep::send(const Batch& batch) {
  if (model_.device() == Device::cpu()) return;
  const ScopeGuard scope(this);
  if (!ring_) ring_ = backend_for(model_.device()).upload_ring();
  Sent s = prepare(batch);
  const PaddedTargets& o = s.targets.objects;
  std::vector<Tensor> parts = {o.boxes, o.classes, o.mask_ids, s.targets.masks};
  if (batch.tiles) {
    parts.push_back(bytes_of(batch.tiles->bytes.data(), batch.tiles->bytes.size()));
    parts.push_back(bytes_of(batch.tiles->items.data(), batch.tiles->items.size() * sizeof(AugmentItem)));
  } else {
    parts.push_back(batch.images);
  }
  ring_->send(parts);
  s.targets.objects.boxes = s.targets.objects.classes = s.targets.objects.mask_ids = s.targets.masks = {};
  sent_.push_back(std::move(s));
}

void TrainStep::place(const Batch& batch) {
  if (model_.device() == Device::cpu()) {
    targets_ = prepare(batch).targets;
    images_ = batch.images;
    return;
  }
  if (sent_.empty()) send(batch);
  const ScopeGuard scope(this);
  const std::vector<Tensor> parts = ring_->take();
  const Sent s = std::move(sent_.front());
  sent_.pop_front();
  keep(targets_.objects.boxes, parts[0]);
  keep(targets_.objects.classes, parts[1]);
  keep(targets_.objects.mask_ids, parts[2]);
  keep(targets_.masks, parts[3]);
  targets_.objects.largest_class = s.targets.objects.largest_class;
  targets_.overlap = s.targets.overlap;
  targets_.height = s.targets.height;
  targets_.width = s.targets.width;
  if (!s.tiles) return keep(images_, parts[4]);
  if (!images_.defined() || images_.shape() != s.images) images_ = Tensor::empty(s.images, DType::kU8, model_.device());
  augment_images(parts[5], parts[4], images_);
}

Variable TrainStep::network_input() const {
  const int64_t h = targets_.height, w = targets_.width;
  if (images_.size(1) == h && images_.size(2) == w) return Variable(images_);
  const ScopeGuard scope(this);
  return Variable(ops::resize_bilinear(normalize(images_, DType::kF32).data(), h, w));
}

void TrainStep::work(bool with_update) {
  const RoundedWeights rounded(update_.arena(), model_.compute_type());
  const LossResult loss = loss_(model_.forward(network_input()), targets_);
  ranks_.backward(loss.total, update_.loss_seed());
  if (own_statistics_) ranks_.broadcast_buffers();
  if (with_update) {
    const ScopeGuard scope(&update_);
    update_.run();
  }
  loss.write_sums(feedback_.narrow(0, 0, LossResult::kSums));
  feedback_.narrow(0, LossResult::kSums, kUpdateSlots).copy_from(update_.state());
}

void TrainStep::start(const Batch& batch, const ScheduleValues& values, bool with_update) {
  place(batch);
  update_.set(values.lr, values.momentum);
  with_update_ = with_update;
  again();
  if (model_.device() == Device::cpu()) images_ = targets_.masks = {};  // the batch's own
}

void TrainStep::again() {
  // What a step does on the host it does while it is recorded too, and not when it is replayed.
  std::vector<int64_t> seen;
  for (const BatchNorm2d* norm : norms_) seen.push_back(*norm->num_batches_tracked.data<int64_t>());
  const Shape& masks = targets_.masks.defined() ? targets_.masks.shape() : Shape{};
  const std::string shapes = fmt::format("{} {}x{} {} {} {}", to_string(images_.shape()), targets_.height, targets_.width,
                                         to_string(targets_.objects.boxes.shape()), to_string(masks), targets_.overlap);
  ran_ = replay_.run(shapes, with_update_, [&] { work(with_update_); });
  for (size_t i = 0; i < seen.size(); ++i) *norms_[i]->num_batches_tracked.data<int64_t>() = seen[i] + norms_[i]->training();
}

StepResult TrainStep::finish() {
  ranks_.wait();
  const std::vector<double> said = feedback_.to_vector<double>();
  StepResult result;
  result.ran = ran_;
  result.loss = LossResult::report_of(said.data(), loss_.gains());
  if (with_update_) result.update = update_.report(said.data() + LossResult::kSums);
  return result;
}

StepResult TrainStep::run(const Batch& batch, const ScheduleValues& values, bool with_update) {
  start(batch, values, with_update);
  return finish();
}

}  // namespace tessera
