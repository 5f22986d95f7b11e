// The network on a device: a training step and a prediction through the kernels on the emulated GPU, beside the reference on the
// host. Device memory is closed to the host meanwhile, so that a line above the backend that reads it ends the program.
#include "yolo/model.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "autograd/grad_mode.h"
#include "data/sample.h"
#include "nn/io/safetensors.h"
#include "nn/optim/ema.h"
#include "nn/optim/optimizer.h"
#include "nn/parameter_arena.h"
#include "tensor/backend.h"
#include "tensor/ops/random.h"
#include "tensor/profiler.h"
#include "tests/cuda_host/emulator.h"
#include "tests/yolo/formula_model.h"
#include "yolo/eval/predictor.h"
#include "yolo/train/loss.h"
#include "yolo/train/memory_plan.h"

namespace tessera::testing {
namespace {

constexpr int64_t kSize = 64, kMask = kSize / 4;
const Device kCuda = Device::cuda();

// Three objects in two images.
Batch small_batch() {
  Batch batch;
  const Tensor noise = Tensor::empty({2, kSize, kSize, 3});
  ops::uniform(noise, {7, RngPurpose::kTest, 1}, 0.0, 256.0);
  batch.images = noise.to(DType::kU8);
  batch.targets = {{1, {0.30f, 0.35f, 0.45f, 0.50f}}, {0, {0.60f, 0.55f, 0.55f, 0.60f}}, {1, {0.50f, 0.45f, 0.85f, 0.70f}}};
  batch.target_image = {0, 0, 1};
  batch.masks = Tensor::zeros({2, kMask, kMask}, DType::kI32);
  for (int64_t y = 3; y < 12; ++y) {
    for (int64_t x = 2; x < 13; ++x) {
      batch.masks.data<int32_t>()[y * kMask + x] = y < 8 ? 1 : 2;
      batch.masks.data<int32_t>()[(kMask + y) * kMask + x] = 1;
    }
  }
  return batch;
}

std::unique_ptr<YoloSeg> small_model(Device device) {
  auto model = std::make_unique<YoloSeg>(parse_model_yaml("yolov8n-seg", {}, 2));
  model->init(3);
  model->to(device);
  return model;
}

using Named = std::map<std::string, std::vector<float>>;

struct Step {
  LossReport loss;
  float total = 0;
  Named gradients, updated, averages;  // after one step
};

Step training_step(Device device) {
  const auto model = small_model(device);
  const ParameterArena arena(*model);
  Sgd optimizer(arena, true);
  Ema ema(arena);
  const Batch batch = small_batch();
  Step s;
  const LossResult loss = SegmentationLoss()(model->forward(normalize(batch.images.to(device))), batch);
  CHECK(loss.total.data().device() == device);
  loss.total.backward();
  s.loss = loss.report();
  s.total = float(loss.total.data().item());
  const auto state = [&] {
    Named values;
    for (const auto& [name, tensor] : model->state_dict()) {
      if (is_floating(tensor.dtype())) values[name] = tensor.to_vector<float>();
    }
    return values;
  };
  model->for_each_parameter([&](const std::string& name, Variable& p) {
    CHECK(p.data().device() == device);
    if (!p.requires_grad()) return;
    CHECK(p.grad().device() == device);
    s.gradients[name] = p.grad().to_vector<float>();
  });
  StepInfo info;
  info.lr.fill(1e-2);
  info.weight_decay[size_t(ParamGroup::kWeight)] = 5e-4;
  info.grad_scale = std::min(1.0, 10.0 / (arena.grad_norm() + 1e-6));
  optimizer.step(info);
  arena.zero_grad();
  ema.update();
  s.updated = state();
  ema.swap();
  s.averages = state();
  return s;
}

// |a - b| / |b|, as vectors.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double(a[i]) - double(b[i]), 2);
    size += std::pow(double(b[i]), 2);
  }
  return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size);
}

void check_all(const char* what, const Named& device, const Named& reference, double tolerance) {
  REQUIRE(device.size() == reference.size());
  double worst = 0;
  std::string where;
  for (const auto& [name, values] : reference) {
    const double d = distance(device.at(name), values);
    CHECK_MESSAGE(d <= tolerance, std::string(what), " of ", name, ": ", d);
    if (d > worst) worst = d, where = name;
  }
  MESSAGE(std::string(what), ": worst ", worst, " (", where, ")");
}

void check_no_reports() {
  const auto reports = emulated::take_reports();
  CHECK_MESSAGE(reports.empty(), reports.size(), " reports, the first: ", reports.empty() ? "" : reports[0]);
}

struct NoHostAccess {
  NoHostAccess() { emulated::allow_host_access(false); }
  ~NoHostAccess() { emulated::allow_host_access(true); }
};

TEST_CASE("a training step on a device") {
  const NoHostAccess closed;
  const Step device = training_step(kCuda);
  check_no_reports();
  const BackendGuard guard(*find_backend("ref"));
  const Step reference = training_step(Device::cpu());
  CHECK(device.loss.positives == reference.loss.positives);
  CHECK(device.loss.target_score_sum == doctest::Approx(reference.loss.target_score_sum).epsilon(1e-5));
  CHECK(device.total == doctest::Approx(reference.total).epsilon(1e-5));
  const LossItems &a = device.loss.items, &b = reference.loss.items;
  CHECK(a.box == doctest::Approx(b.box).epsilon(1e-5));
  CHECK(a.seg == doctest::Approx(b.seg).epsilon(1e-5));
  CHECK(a.cls == doctest::Approx(b.cls).epsilon(1e-5));
  CHECK(a.dfl == doctest::Approx(b.dfl).epsilon(1e-5));
  check_all("gradients", device.gradients, reference.gradients, 1e-3);
  check_all("updated", device.updated, reference.updated, 1e-3);
  check_all("averages", device.averages, reference.averages, 1e-3);
}

// What the host and the device say to each other in a scope.
struct Traffic {
  uint64_t copies = emulated::calls("cudaMemcpyAsync"), waits = emulated::calls("cudaStreamSynchronize"),
           allocations = emulated::calls("cudaMalloc"), launches = emulated::launches();
  Traffic since() const {
    const Traffic now;
    return {now.copies - copies, now.waits - waits, now.allocations - allocations, now.launches - launches};
  }
};

// A device gets the batch and then is left alone: network, assignment, loss and backward pass are launches and nothing else, whose
// shapes are the same for any objects.
TEST_CASE("a training step on a device does not wait for it") {
  const NoHostAccess closed;
  const auto model = small_model(kCuda);
  const ParameterArena arena(*model);
  const SegmentationLoss criterion;
  Batch batch = small_batch();
  const Tensor images = batch.images.to(kCuda);
  Traffic first_step{};
  for (int step = 0; step < 3; ++step) {
    CAPTURE(step);
    if (step == 2) {  // another number of objects, and of positives
      batch.targets.erase(batch.targets.begin());
      batch.target_image.erase(batch.target_image.begin());
    }
    const LossTargets targets = criterion.place(batch, 2, kSize, kSize, kCuda);
    const Traffic before;
    const LossResult loss = criterion(model->forward(normalize(images)), targets);
    loss.total.backward();
    const Traffic during = before.since();
    CHECK(during.launches > 500);
    if (step == 0) {
      first_step = during;  // puts constants and memory in place
    } else {
      CHECK(during.copies == 0);
      CHECK(during.waits == 0);
      CHECK(during.allocations == 0);
      CHECK(during.launches == first_step.launches);
    }
    const Traffic asked;
    const LossReport report = loss.report();
    CHECK(asked.since().copies == 1);
    CHECK(asked.since().waits == 1);
    CHECK(report.positives > 0);
    CHECK(report.items.seg > 0);
    arena.zero_grad();
  }
  check_no_reports();
}

// Room for objects grows by doubling and stays; what is in it is the same.
TEST_CASE("targets on a device") {
  const NoHostAccess closed;
  const SegmentationLoss criterion;
  Batch batch = small_batch();
  CHECK(criterion.place(batch, 2, kSize, kSize, Device::cpu()).objects.boxes.shape() == Shape{2, 2, 4});
  CHECK(criterion.place(batch, 2, kSize, kSize, kCuda).objects.boxes.shape() == Shape{2, 16, 4});
  for (int i = 0; i < 30; ++i) {
    batch.targets.push_back(batch.targets[0]);
    batch.target_image.push_back(1);
  }
  const LossTargets many = criterion.place(batch, 2, kSize, kSize, kCuda);
  CHECK(many.objects.boxes.shape() == Shape{2, 32, 4});
  CHECK(many.objects.boxes.narrow(1, 0, 31).to(Device::cpu()).to_vector<float>() ==
        criterion.place(batch, 2, kSize, kSize, Device::cpu()).objects.boxes.to_vector<float>());
  CHECK(criterion.place(small_batch(), 2, kSize, kSize, kCuda).objects.classes.shape() == Shape{2, 32});
}

// No object at all: the class term is all there is, and every gradient is a number.
TEST_CASE("a batch without objects on a device") {
  const NoHostAccess closed;
  Batch batch = small_batch();
  batch.targets.clear();
  batch.target_image.clear();
  batch.masks = {};
  std::array<LossReport, 2> reports;
  std::array<double, 2> norms{};
  for (size_t i = 0; i < 2; ++i) {
    const Device device = i == 0 ? kCuda : Device::cpu();
    const auto model = small_model(device);
    const ParameterArena arena(*model);
    arena.zero_grad();
    const LossResult loss = SegmentationLoss()(model->forward(normalize(batch.images.to(device))), batch);
    loss.total.backward();
    reports[i] = loss.report();
    norms[i] = arena.grad_norm();
  }
  CHECK(reports[0].positives == 0);
  CHECK(reports[0].target_score_sum == 0);
  CHECK(reports[0].items.box == 0);
  CHECK(reports[0].items.dfl == 0);
  CHECK(reports[0].items.seg == 0);
  CHECK(reports[0].items.cls == doctest::Approx(reports[1].items.cls).epsilon(1e-5));
  CHECK(norms[0] == doctest::Approx(norms[1]).epsilon(1e-3));
  check_no_reports();
}

TEST_CASE("a prediction on a device") {
  const NoHostAccess closed;
  Image image(kSize, kSize);
  const Batch batch = small_batch();
  const uint8_t* const pixels = batch.images.data<uint8_t>();
  std::copy(pixels, pixels + image.pixels.size(), image.pixels.data());
  PredictorOptions options;
  options.imgsz = kSize;
  options.confidence = 0.1f;
  const auto on_device = small_model(kCuda), in_memory = small_model(Device::cpu());
  set_formula_weights(*on_device);
  set_formula_weights(*in_memory);
  Predictor on_device_predictor(*on_device, {"a", "b"}, options), in_memory_predictor(*in_memory, {"a", "b"}, options);

  const NoGrad no_grad;  // both networks are folded now
  const RawOutputs device = on_host(on_device->forward(normalize(batch.images.to(kCuda))));
  const RawOutputs host = in_memory->forward(normalize(batch.images));
  const auto compare = [](const Variable& x, const Variable& y) {
    CHECK(x.data().device() == Device::cpu());
    CHECK(distance(x.data().to_vector<float>(), y.data().to_vector<float>()) <= 1e-4);
  };
  for (size_t level = 0; level < kLevels; ++level) {
    compare(device.box[level], host.box[level]);
    compare(device.cls[level], host.cls[level]);
    compare(device.coefficients[level], host.coefficients[level]);
  }
  compare(device.prototypes, host.prototypes);

  const Prediction found = on_device_predictor.run(image), wanted = in_memory_predictor.run(image);
  check_no_reports();
  CHECK(!wanted.objects.empty());
  REQUIRE(found.objects.size() == wanted.objects.size());
  for (size_t i = 0; i < wanted.objects.size(); ++i) {
    CHECK(found.objects[i].class_id == wanted.objects[i].class_id);
    CHECK(found.objects[i].confidence == doctest::Approx(wanted.objects[i].confidence).epsilon(1e-3));
    CHECK(found.objects[i].box.x1 == doctest::Approx(wanted.objects[i].box.x1).epsilon(1e-3));
    CHECK(found.objects[i].box.y2 == doctest::Approx(wanted.objects[i].box.y2).epsilon(1e-3));
  }
}

TEST_CASE("weights go from a device to a file and back") {
  const NoHostAccess closed;
  const auto path = std::filesystem::temp_directory_path() / "tessera_cuda_host_model.safetensors";
  const auto from = small_model(kCuda);
  write_safetensors(path, from->state_dict());
  YoloSeg to(parse_model_yaml("yolov8n-seg", {}, 2));
  to.to(kCuda);
  CHECK(to.load(read_safetensors(path).tensors).complete());
  std::filesystem::remove(path);
  for (const auto& [name, tensor] : from->state_dict()) {
    CHECK(tensor.device() == (is_floating(tensor.dtype()) ? kCuda : Device::cpu()));  // counters stay
    CHECK(to_string(to.state_dict().at(name).to(DType::kF64)) == to_string(tensor.to(DType::kF64)));
  }
}

TEST_CASE("profile and memory plan of a device") {
  const auto model = small_model(kCuda);
  model->train(false);
  model->fold();
  Profiler profiler(backend_for(kCuda));
  const Tensor images = Tensor::full({1, 32, 32, 3}, 9, DType::kU8);
  {
    const NoGrad no_grad;
    const BackendGuard guard(profiler);
    model->forward(normalize(images.to(kCuda)));
  }
  double flops = 0, uploaded = 0, expected = 0;
  for (const auto& [key, total] : profiler.totals()) {
    flops += std::get<OpKind>(key) == OpKind::kForward ? total.operations : 0;
    uploaded += std::get<OpKind>(key) == OpKind::kTransfer ? total.bytes : 0;
  }
  for (const LayerSummary& l : model->layer_table(32, 32)) expected += l.flops;
  CHECK(flops == doctest::Approx(expected).epsilon(1e-12));
  CHECK(uploaded == 32 * 32 * 3);

  // Rehearsed without a byte of the device's memory.
  const AllocatorStats before = backend_for(kCuda).allocator().stats();
  MemoryRequest request;
  request.spec = model->spec();
  request.device = kCuda;
  request.imgsz = 64;
  MemoryPlan plan(request);
  const MemoryBudget budget = memory_budget(kCuda);
  CHECK(budget.what == "the device");
  CHECK(budget.bytes > int64_t{1} << 30);
  CHECK(plan.peak_bytes(32) > plan.peak_bytes(1));
  CHECK(check_memory(plan, budget, 2, 2, 64) <= budget.bytes);
  CHECK(backend_for(kCuda).allocator().stats().allocations == before.allocations);
}

}  // namespace
}  // namespace tessera::testing
