#include "yolo/train/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "autograd/functions/concat.h"
#include "autograd/functions/index.h"
#include "autograd/functions/loss.h"
#include "autograd/functions/pointwise.h"
#include "autograd/grad_mode.h"
#include "nn/optim/ema.h"
#include "nn/optim/optimizer.h"
#include "nn/rounded_weights.h"
#include "tensor/base/memory.h"
#include "tensor/base/parallel.h"
#include "tensor/ops/pool.h"
#include "tensor/silent_backend.h"
#include "tensor/upload_ring.h"
#include "yolo/eval/evaluator.h"
#include "yolo/eval/masks.h"
#include "yolo/model.h"

namespace tessera {

namespace {

constexpr int64_t kPositives = 48;                    // an image; their rows are small beside the maps
constexpr int64_t kProgramBytes = int64_t(14) << 20;  // of the program's own pages, those that are touched after a plan is made: measured
constexpr int64_t kMoreThanThereIs = std::numeric_limits<int64_t>::max();  // a rehearsal found no addresses (ulimit -v)
constexpr int64_t kDrawingBytes = int64_t(32) << 20;  // measured at 160 to 640 pixels: 28 to 48 MiB, some of it in place of others

// What SegmentationLoss allocates, for positives that need not be found.
Variable stand_in_loss(const RawOutputs& outputs, const Tensor& masks) {
  const Device device = outputs.prototypes.data().device();
  const int64_t n = outputs.prototypes.size(0) * kPositives;
  const auto zeros = [&](const Shape& shape) { return Tensor::zeros(shape, DType::kF32, device); };
  // What the host checks has to have its values, although no op runs.
  const auto listed = [&]<class T>(T value, const Shape& shape) {
    return Tensor::from_vector(std::vector<T>(size_t(numel(shape)), value), shape).to(device);
  };
  Variable total;
  const auto add = [&](const Variable& term) { total = total.defined() ? ag::add(total, term) : term; };
  int64_t rows = 0;
  for (const Variable& scores : outputs.cls) rows += scores.data().numel() / scores.size(-1);
  add(ag::bce_with_labels(outputs.cls, listed(int32_t{-1}, {rows}), zeros({rows})));
  const Tensor index = listed(int64_t{0}, {kAnchorLevels, n});
  add(ag::dfl_loss(ag::gather_rows(outputs.box, index), zeros({n, 4}), zeros({n})));
  const ag::MaskLossTargets items{listed(int32_t{0}, {n}), listed(int32_t{0}, {n}), zeros({n, 4}), listed(1.0f, {n}), true};
  add(ag::mask_loss(ag::gather_rows(outputs.coefficients, index), outputs.prototypes, masks, items));
  return total;
}

}  // namespace

// The network and what a training keeps for it, in memory that is not there.
struct MemoryPlan::Rehearsal {
  explicit Rehearsal(const MemoryRequest& r) : request(r), backend(backend_for(r.device)) {
    const BackendGuard guard(backend);
    model = std::make_unique<YoloSeg>(r.spec);
    model->set_compute_type(r.compute_type);
    model->set_recompute(r.recompute);
    model->freeze(r.frozen_layers);
    model->to(r.device);
    arena = std::make_unique<ParameterArena>(*model);
    if (r.rule == UpdateRule::kSgd) {
      optimizer = std::make_unique<Sgd>(*arena, true);
    } else {
      optimizer = std::make_unique<Adam>(*arena, r.rule == UpdateRule::kAdamW, 0.9);
    }
    ema = std::make_unique<Ema>(*arena);
  }

  // u8 images and index maps as the loader hands them over, `copies` times.
  struct Input {
    Tensor images, masks;
  };
  std::vector<Input> inputs(int64_t batch, int64_t copies, Size size, bool tiles = false) const {
    const int64_t mh = size.height / request.mask_ratio, mw = size.width / request.mask_ratio;
    std::vector<Input> made;
    for (int64_t i = 0; i < copies; ++i) {
      made.push_back({Tensor::empty({batch * (tiles ? 4 : 1), size.height, size.width, 3}, DType::kU8),
                      Tensor::empty({batch, mh, mw}, DType::kI32)});
    }
    return made;
  }

  // What the loss reads: the masks, made again where they are not of the prototypes' size.
  Tensor loss_masks(const Input& input, Size size) const {
    const int64_t mh = 2 * size.height / model->strides()[0], mw = 2 * size.width / model->strides()[0];
    const bool fits = input.masks.size(1) == mh && input.masks.size(2) == mw;
    return fits ? input.masks : Tensor::empty({input.masks.size(0), mh, mw}, DType::kI32);
  }

  // Twice over when there are several shapes: what one leaves behind is not always of use to the next.
  void train(int64_t batch, int64_t steps) {
    const int side = int(request.imgsz);
    if (request.shapes.empty()) return train(batch, steps, TrainShape{{side, side}, {side, side}});
    for (int round = 0; round < (request.shapes.size() > 1 ? 2 : 1); ++round) {
      for (const TrainShape& shape : request.shapes) train(batch, steps, shape);
    }
  }

  void train(int64_t batch, int64_t steps, const TrainShape& shape) {
    model->train(true);
    const std::vector<Input> made = inputs(batch, 1 + request.batches_ahead, shape.images, request.plan_pixels);
    // On a device the ring's slots beside what the step reads.
    std::vector<Tensor> slots;
    const Tensor on_host = loss_masks(made.front(), shape.input);
    for (int i = 0; request.device != Device::cpu() && i < UploadRing::kSlots; ++i) {
      slots.push_back(made.front().images.to(request.device));
      slots.push_back(on_host.to(request.device));
    }
    for (int64_t i = 0; i < steps; ++i) {
      const RoundedWeights rounded(*arena, request.compute_type);
      const Tensor images = made.front().images.narrow(0, 0, batch).to(request.device), masks = on_host.to(request.device);
      const bool resized = shape.images.height != shape.input.height || shape.images.width != shape.input.width;
      const Variable input =
          !resized ? Variable(images)
                   : Variable(ops::resize_bilinear(normalize(images, DType::kF32).data(), shape.input.height, shape.input.width));
      stand_in_loss(model->forward(input), masks).backward();
    }
  }

  // A validation of `network`. Its images are not square, but may be, and then come with half a stride on each side.
  void validate(YoloSeg& network, int64_t batch) {
    const NoGrad no_grad;
    const int64_t size = request.imgsz + network.max_stride();
    const Size square{int(size), int(size)};
    const std::vector<Input> made = inputs(batch, 1 + request.batches_ahead, square);
    network.train(false);
    network.fold();
    {
      const int64_t at_once = images_at_once(batch, size * size, request.device);
      const Variable images = normalize(made.front().images.narrow(0, 0, at_once).to(request.device), network.compute_type());
      RawOutputs outputs = network.forward(images), whole = outputs;
      if (at_once < batch) {
        const auto enlarge = [&](Variable& v) {
          const Tensor& t = v.data();
          v = Variable(Tensor::empty({batch, t.size(1), t.size(2), t.size(3)}, t.dtype(), t.device()));
        };
        for (auto* maps : {&whole.box, &whole.cls, &whole.coefficients}) std::for_each(maps->begin(), maps->end(), enlarge);
        enlarge(whole.prototypes);
        outputs = {};
        outputs = network.forward(images);  // the last part, beside those before it
      }
      const DetectParams params{.multi_label = true};
      detect(outputs, network.strides(), params);
      if (request.device != Device::cpu()) {
        const int64_t words = batch * params.max_detections * words_of_row(size) * size;
        Tensor::empty({std::min(kMaskWordsAtOnce, words)}, DType::kI32, request.device);
      }
      outputs = {};
      stand_in_loss(whole, loss_masks(made.front(), square).to(request.device));
    }
    network.unfold();
  }

  void validate(int64_t batch) {
    const auto trim = [&] {
      if (request.device != Device::cpu()) backend.allocator().trim();
    };
    trim();
    ema->swap();
    validate(*model, batch);
    ema->swap();
    trim();
  }

  // The weights that are kept, read again and validated beside the training's, in f32.
  void validate_best(int64_t batch) {
    YoloSeg best(request.spec);
    best.to(request.device);
    validate(best, batch);
  }

  int64_t peak(int64_t batch) {
    const BackendGuard guard(backend);
    CachingAllocator& allocator = backend.allocator();
    allocator.trim();
    allocator.reset_peaks();
    backend.reset_thread_scratch();
    train(batch, 2);
    if (request.val_images > 0) {
      const int64_t images = std::min(2 * batch, request.val_images);
      validate(images);
      train(batch, 1);
      validate_best(images);
    }
    const int64_t threads = request.device == Device::cpu() ? compute_threads() : 0;
    return allocator.stats().peak_reserved + threads * backend.thread_scratch_bytes();
  }

  const MemoryRequest& request;
  SilentBackend backend;
  std::unique_ptr<YoloSeg> model;
  std::unique_ptr<ParameterArena> arena;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Ema> ema;
};

MemoryPlan::MemoryPlan(MemoryRequest request)
    : request_(std::move(request)),
      elsewhere_(std::max<int64_t>(resident_bytes() - host_allocator().stats().bytes_reserved, 0)),
      rehearsal_(std::make_unique<Rehearsal>(request_)) {}
MemoryPlan::~MemoryPlan() = default;

int64_t MemoryPlan::peak_bytes(int64_t batch) {
  int64_t peak = 0;
  try {
    peak = rehearsal_->peak(batch);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kMemory) throw;
    return kMoreThanThereIs;
  }
  if (request_.device != Device::cpu()) return peak;
  const int64_t m = request_.imgsz / request_.mask_ratio;
  const int64_t sample = 3 * request_.imgsz * request_.imgsz + 4 * m * m;
  const int64_t samples =
      std::max(batch, std::min(2 * batch, request_.val_images)) * sample;  // of a batch that is being put together
  const int64_t mosaics = request_.loader_threads * 2 * 4 * 3 * request_.imgsz * request_.imgsz;
  return elsewhere_ + kProgramBytes + peak + samples + mosaics + request_.cache_bytes +
         std::max(request_.plots ? kDrawingBytes : 0, request_.report_bytes);
}

bool MemoryPlan::draws_much() const { return request_.plots && request_.report_bytes > 2 * kDrawingBytes; }

int64_t MemoryPlan::largest_batch(int64_t bytes, int64_t most) {
  int64_t low = 1, low_peak = peak_bytes(1);
  if (low_peak > bytes || most < 1) return 0;
  // Nearly affine: a few steps along the line through two batches, then the last ones by halves.
  double slope = double(std::max<int64_t>(peak_bytes(2) - low_peak, 1));
  for (int64_t high = most + 1, tries = 0; high - low > 1; ++tries) {
    const double along = double(low) + double(bytes - low_peak) / slope;
    const int64_t guess = tries < 4 ? int64_t(std::min(along, double(high))) : low + (high - low) / 2;
    const int64_t batch = std::clamp(guess, low + 1, high - 1);
    const int64_t peak = peak_bytes(batch);
    if (peak <= bytes) {
      slope = std::max(double(peak - low_peak) / double(batch - low), 1.0);
      low = batch;
      low_peak = peak;
    } else {
      high = batch;
    }
  }
  return low;
}

MemoryBudget memory_budget(Device device) {
  if (device == Device::cpu()) {
    const MemoryLimit limit = available_memory();
    if (limit.what.empty()) return {};
    return {limit.bytes + resident_bytes(), limit.what};
  }
  Backend& backend = backend_for(device);
  return {backend.available_bytes() + backend.allocator().stats().bytes_reserved, "the device"};
}

int64_t plan_batch(MemoryPlan& plan, const MemoryBudget& budget, int64_t nbs, std::string& reason) {
  if (budget.bytes <= 0)
    throw Error(ErrorCode::kMemory, "--batch -1: the system does not say how much memory there is", {}, "give --batch");
  const int64_t bytes = int64_t(kPlannedPart * double(budget.bytes));
  const int64_t batch = plan.largest_batch(bytes, nbs);
  if (batch == 0) {
    throw Error(ErrorCode::kMemory,
                fmt::format("not even a batch of 1 fits: it takes {} MiB, and {:.0f} % of what {} leaves are {} MiB",
                            plan.peak_bytes(1) >> 20, 100 * kPlannedPart, budget.what, bytes >> 20),
                {}, "use a smaller image size or model, or give --batch to use more of the memory");
  }
  reason = fmt::format("batch {}: needs {} MiB of the {} MiB that {} leaves ({:.0f} % of it are planned with{})", batch,
                       plan.peak_bytes(batch) >> 20, budget.bytes >> 20, budget.what, 100 * kPlannedPart,
                       batch == nbs ? "; no more than --nbs" : "");
  return batch;
}

int64_t check_memory(MemoryPlan& plan, const MemoryBudget& budget, int64_t batch, int64_t images, int64_t imgsz) {
  const int64_t needed = plan.peak_bytes(std::min(batch, images));
  if (budget.bytes <= 0 || needed <= budget.bytes) return needed;
  const int64_t fits = plan.largest_batch(budget.bytes, std::min(batch, images) - 1);
  throw Error(ErrorCode::kMemory,
              fmt::format("batch {} at {} pixels needs {}, {} leaves {} MiB", batch, imgsz,
                          needed == kMoreThanThereIs ? "more addresses than there are" : fmt::format("{} MiB", needed >> 20),
                          budget.what, budget.bytes >> 20),
              {},
              (fits > 0 ? fmt::format("--batch {} would fit; --batch -1 chooses one", fits)
                        : "not even a batch of 1 fits: use a smaller image size or model") +
                  (plan.recomputes() ? "" : "; --recompute true needs less") +
                  (plan.draws_much() ? "; --plots false, too, with this many classes" : ""));
}

}  // namespace tessera
