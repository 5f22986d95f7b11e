#include "yolo/train/train_step.h"

#include "nn/layers/batch_norm2d.h"
#include "tensor/augment.h"
#include "tensor/backend.h"
#include "tensor/base/scope.h"

namespace tessera {

namespace {
// Into memory that stays as long as the shape does. On the host the tensor itself will do.
void put(Tensor& into, const Tensor& from, Device device) {
  const bool fits = into.defined() && into.shape() == from.shape();
  if (device == Device::cpu() || !fits) {
    into = from.defined() ? from.to(device) : Tensor{};
  } else {
    backend_for(device).upload(into.raw(), from.raw(), size_t(from.numel()) * size_of(from.dtype()));
  }
}
}  // namespace

TrainStep::TrainStep(YoloSeg& model, const SegmentationLoss& loss, DataParallel& ranks, WeightUpdate& update, StepReplay replay,
                     bool own_statistics)
    : model_(model), loss_(loss), ranks_(ranks), update_(update), replay_(std::move(replay)), own_statistics_(own_statistics) {
  feedback_ = Tensor::zeros({LossResult::kSums + kUpdateSlots}, DType::kF64, model.device());
  model.for_each_module([&](const std::string&, Module& m) {
    if (auto* bn = dynamic_cast<BatchNorm2d*>(&m)) batches_seen_.push_back(bn->num_batches_tracked);
  });
}

void TrainStep::release() {
  replay_.release();
  images_ = {};
  targets_ = {};
}

void TrainStep::place(const Batch& batch, const ScheduleValues& values) {
  const ScopeGuard scope(this);
  update_.set(values.lr, values.momentum);
  const Device device = model_.device();
  if (batch.tiles) {
    const Shape shape{batch.size(), batch.height(), batch.width(), 3};
    if (!images_.defined() || images_.shape() != shape) images_ = Tensor::empty(shape, DType::kU8, device);
    augment_images(batch.tiles->items, batch.tiles->bytes, images_);
  } else {
    put(images_, batch.images, device);
  }
  const LossTargets t = loss_.prepare(batch, batch.size(), batch.height(), batch.width(), device);
  put(targets_.objects.boxes, t.objects.boxes, device);
  put(targets_.objects.classes, t.objects.classes, device);
  put(targets_.objects.mask_ids, t.objects.mask_ids, device);
  put(targets_.masks, t.masks, device);
  targets_.objects.largest_class = t.objects.largest_class;
  targets_.overlap = t.overlap;
  targets_.height = t.height;
  targets_.width = t.width;
  // A replayed loss does not look.
  TESSERA_CHECK(t.objects.largest_class < model_.nc(), "a target of class {}, the model has {}", t.objects.largest_class,
                model_.nc());
}

void TrainStep::work(bool with_update) {
  const LossResult loss = loss_(model_.forward(normalize(images_)), targets_);
  ranks_.backward(loss.total, update_.loss_seed());
  if (own_statistics_) ranks_.broadcast_buffers();
  if (with_update) {
    const ScopeGuard scope(&update_);
    update_.run();
  }
  feedback_.narrow(0, 0, LossResult::kSums).copy_from(loss.sums());
  feedback_.narrow(0, LossResult::kSums, kUpdateSlots).copy_from(update_.state());
}

StepResult TrainStep::run(const Batch& batch, const ScheduleValues& values, bool with_update) {
  place(batch, values);
  // What a step does on the host it does while it is recorded too, and not when it is replayed.
  std::vector<int64_t> seen;
  for (const Tensor& t : batches_seen_) seen.push_back(*t.data<int64_t>());
  const Shape& masks = targets_.masks.defined() ? targets_.masks.shape() : Shape{};
  const std::string shapes = fmt::format("{} {} {} {}", to_string(images_.shape()), to_string(targets_.objects.boxes.shape()),
                                         to_string(masks), targets_.overlap);
  StepResult result;
  result.ran = replay_.run(shapes, with_update, [&] { work(with_update); });
  for (size_t i = 0; i < seen.size(); ++i) *batches_seen_[i].data<int64_t>() = seen[i] + 1;
  if (model_.device() == Device::cpu()) images_ = targets_.masks = {};  // the batch's own
  const std::vector<double> said = feedback_.to_vector<double>();
  result.loss = LossResult::report_of(said.data(), loss_.gains());
  if (with_update) result.update = update_.report(said.data() + LossResult::kSums);
  return result;
}

}  // namespace tessera
