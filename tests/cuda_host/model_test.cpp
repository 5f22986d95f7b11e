// The network on a device: a training step and a prediction through the kernels on the emulated GPU, beside the reference on the
// host. Device memory is closed to the host meanwhile, so that a line above the backend that reads it ends the program.
#include "yolo/model.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>

#include "autograd/grad_mode.h"
#include "cuda/side_work.h"
#include "data/sample.h"
#include "nn/io/safetensors.h"
#include "nn/layers/conv2d.h"
#include "nn/parameter_arena.h"
#include "tensor/backend.h"
#include "tensor/ops/random.h"
#include "tensor/profiler.h"
#include "tests/cuda_host/emulator.h"
#include "tests/support/device_training.h"
#include "tests/support/temp_folder.h"
#include "tests/yolo/formula_model.h"
#include "yolo/eval/predictor.h"
#include "yolo/eval/replayed_forward.h"
#include "yolo/train/loss.h"
#include "yolo/train/memory_plan.h"

namespace tessera::testing {
namespace {

using Named = std::map<std::string, std::vector<float>>;

struct Step {
  LossReport loss;
  float total = 0;
  Named gradients, updated, averages;  // after one step
};

// In fp16 the loss is scaled by a value at which nothing overflows here. `images_seed`: of the images' random numbers.
Step training_step(Device device, DType type = DType::kF32, uint32_t images_seed = 1) {
  const auto model = small_model(device);
  model->set_compute_type(type);
  const ParameterArena arena(*model);
  Sgd optimizer(arena, true);
  Ema ema(arena);
  const double scale = type == DType::kF16 ? 256 : 1;
  WeightUpdate update(arena, optimizer, ema, {0, 5e-4, 0}, 10, {.on = type == DType::kF16, .initial = scale});
  Batch batch = small_batch();
  const Tensor noise = Tensor::empty(batch.images.shape());
  ops::uniform(noise, {7, RngPurpose::kTest, images_seed}, 0.0, 256.0);
  batch.images = noise.to(DType::kU8);
  Step s;
  const LossResult loss = SegmentationLoss()(model->forward(normalize(batch.images.to(device))), batch);
  CHECK(loss.total.data().device() == device);
  DataParallel(arena, single_process()).backward(loss.total, update.loss_seed());
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
    CHECK(p.grad().dtype() == DType::kF32);
    for (float g : p.grad().to_vector<float>()) s.gradients[name].push_back(float(g / scale));
  });
  update.set({1e-2, 1e-2, 1e-2}, 0.937);
  update.run();
  CHECK(update.report(update.state().to_vector<double>().data()).made);
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

// Difference of all gradients together, of their length.
double whole_distance(const Named& a, const Named& b) {
  std::vector<float> left, right;
  for (const auto& [name, values] : b) {
    right.insert(right.end(), values.begin(), values.end());
    left.insert(left.end(), a.at(name).begin(), a.at(name).end());
  }
  return distance(left, right);
}

// In 16 bits two orders of a sum round to different values, which batch norm over few pixels amplifies: the device may lie about as
// far from f32 as the reference in the same type does. One sample says little: which way a rounding goes may put the gradient several
// times as far off. Of 18 batches fp16 put the reference 0.056 to 0.11 from f32 in 13, 0.16 to 0.37 in the other five (bf16: 0.35 to
// 0.77, and once 1.14). So the second smallest of five is held: drawn twice from those 18, it is more than kSpread times as large
// the second time in 3 of 100 draws (bf16: in one), while the median would be in 10. The loss is off to either side, so that its
// error may be next to nothing: one rounding more is allowed.
TEST_CASE("a training step on a device in 16 bits") {
  const NoHostAccess closed;
  const BackendGuard guard(*find_backend("ref"));
  constexpr double kSpread = 1.5;
  struct Errors {
    std::vector<double> gradients, total, updated, averages;
    void add(const Step& s, const Step& wide) {
      gradients.push_back(whole_distance(s.gradients, wide.gradients));
      total.push_back(std::abs(s.total / wide.total - 1));
      updated.push_back(whole_distance(s.updated, wide.updated));
      averages.push_back(whole_distance(s.averages, wide.averages));
    }
  };
  const auto usual = [](std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[1];
  };
  const std::array types{DType::kBF16, DType::kF16};
  std::array<Errors, 2> of_device, of_reference;
  for (uint32_t images_seed = 1; images_seed <= 5; ++images_seed) {
    const Step wide = training_step(Device::cpu(), DType::kF32, images_seed);
    for (size_t i = 0; i < types.size(); ++i) {
      of_device[i].add(training_step(kCuda, types[i], images_seed), wide);
      of_reference[i].add(training_step(Device::cpu(), types[i], images_seed), wide);
    }
  }
  check_no_reports();
  for (size_t i = 0; i < types.size(); ++i) {
    CAPTURE(name_of(types[i]));
    const Errors &device = of_device[i], &reference = of_reference[i];
    const auto [least, most] = std::minmax_element(device.gradients.begin(), device.gradients.end());
    MESSAGE(std::string(name_of(types[i])), ": gradient of the device ", usual(device.gradients), " from f32 (", *least, " to ", *most,
            "), of the reference ", usual(reference.gradients));
    const double rounding = types[i] == DType::kBF16 ? 0x1p-8 : 0x1p-11;
    CHECK(*least > 1e-5);  // it did compute in 16 bits
    CHECK(usual(device.gradients) <= kSpread * usual(reference.gradients));
    CHECK(usual(device.total) <= kSpread * usual(reference.total) + rounding);
    CHECK(usual(device.updated) <= kSpread * usual(reference.updated));
    CHECK(usual(device.averages) <= kSpread * usual(reference.averages));
  }
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

// A device gets the batch and the learning rates and then is left alone: network, assignment, loss, backward pass, norm, clip,
// update and average are launches and nothing else, whose shapes are the same for any objects.
TEST_CASE("a training step on a device does not wait for it") {
  const NoHostAccess closed;
  const auto model = small_model(kCuda);
  const ParameterArena arena(*model);
  Adam optimizer(arena, true, 0.9);
  Ema ema(arena);
  WeightUpdate update(arena, optimizer, ema, {0, 5e-4, 0}, 10, {.on = true, .initial = 64});
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
    const LossTargets targets = criterion.upload_targets(batch, 2, kSize, kSize, kCuda);
    update.set({1e-3, 1e-3, 1e-3}, 0);
    const Traffic before;
    const LossResult loss = criterion(model->forward(normalize(images)), targets);
    DataParallel(arena, single_process()).backward(loss.total, update.loss_seed());
    const uint64_t launched = emulated::launches();
    update.run();
    CHECK(emulated::launches() == launched + 3);
    const Traffic during = before.since();
    MESSAGE(during.launches, " launches");
    CHECK(during.launches < 1000);
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
    CHECK(update.report(update.state().to_vector<double>().data()).made);
  }
  check_no_reports();
}

// fp16: trainer_test.cpp.
TEST_CASE("replayed steps have the bits of steps call by call") {
  const NoHostAccess closed;
  Training calls(false), graph(true);
  int replayed = 0, recorded = 0;
  const auto both = [&](int64_t index, int64_t images) {
    CAPTURE(index);
    const StepResult a = calls.run(index, images);
    const Traffic before;
    const StepResult b = graph.run(index, images);
    const Traffic during = before.since();
    CHECK(a.ran == StepReplay::Ran::kCalls);
    CHECK(b.loss.items.box == a.loss.items.box);
    CHECK(b.loss.items.seg == a.loss.items.seg);
    CHECK(b.loss.items.cls == a.loss.items.cls);
    CHECK(b.loss.items.dfl == a.loss.items.dfl);
    CHECK(b.update.norm == a.update.norm);
    CHECK(b.update.scale == a.update.scale);
    recorded += b.ran == StepReplay::Ran::kRecorded;
    if (b.ran != StepReplay::Ran::kReplayed) return;
    ++replayed;
    CHECK(during.copies == 7);  // images, three of the objects, masks and rates there; what happened back
    CHECK(during.allocations == 0);
    CHECK(during.launches > 500);
  };
  for (int64_t i = 0; i < 6; ++i) both(i, 2);  // the fourth is recorded, the fifth replayed; the sixth makes no update
  both(6, 1);                                  // the last batch of an epoch
  both(8, 2);
  CHECK(recorded == 2);
  CHECK(replayed == 1);
  for (Training* t : {&calls, &graph}) {  // as a benchmark does
    t->step.repeat();
    t->step.finish();
  }
  check_same_bits(graph.state(), calls.state());
  CHECK(graph.log.empty());
  check_no_reports();
}

// As a step has its gradients of weights beside the chain: late, or at any time.
TEST_CASE("steps with gradients of weights beside the chain have the bits of steps call by call") {
  const NoHostAccess closed;
  const int calls_before = cuda::side_calls();
  const uint64_t seed = emulated::seed();
  DType type = DType::kF32;
  int calls_beside = 8;
  bool late = true, made_again = false;
  SUBCASE("late") {}
  SUBCASE("late, one at a time, in 16 bits") { type = DType::kBF16, calls_beside = 1; }
  SUBCASE("at any time, activations made again, in 16 bits") { type = DType::kBF16, calls_beside = 3, late = false, made_again = true; }
  cuda::set_side_calls(calls_beside);
  emulated::delay_forks(late);
  Training calls(false, type), graph(true, type, true, single_process(), false, made_again);
  for (int64_t i = 0; i < 4; ++i) {
    CAPTURE(i);
    if (!late) emulated::set_seed(uint64_t(100 + i));
    const StepResult a = calls.run(i, 1), b = graph.run(i, 1);
    CHECK(b.update.norm == a.update.norm);
    if (i == 3) CHECK(b.ran == StepReplay::Ran::kRecorded);
  }
  for (Training* t : {&calls, &graph}) {
    t->step.repeat();
    t->step.finish();
  }
  check_same_bits(graph.state(), calls.state());
  cuda::set_side_calls(calls_before);
  emulated::delay_forks(false);
  emulated::set_seed(seed);
  check_no_reports();
}

TEST_CASE("activations that are made again on a device change no bit of a replayed step") {
  const NoHostAccess closed;
  Training kept(false), made_again(true, DType::kF32, true, single_process(), false, true);
  for (int64_t i = 0; i < 5; ++i) {
    const StepResult a = kept.run(i), b = made_again.run(i);
    CHECK(b.loss.items.seg == a.loss.items.seg);
    CHECK(b.update.norm == a.update.norm);
  }
  check_same_bits(made_again.state(), kept.state());
  check_no_reports();
}

TEST_CASE("a step that cannot be recorded runs call by call, with the same bits") {
  const NoHostAccess closed;
  Training calls(false), graph(true);
  for (int64_t i = 0; i < 5; ++i) {
    calls.run(i, 1);
    if (i == 3) emulated::fail_call("cudaGraphInstantiate", 1, cudaErrorMemoryAllocation);
    CHECK(graph.run(i, 1).ran == StepReplay::Ran::kCalls);
  }
  REQUIRE(graph.log.size() == 1);
  CHECK(graph.log[0].find("not as a CUDA graph: CUDA: out of memory") != std::string::npos);
  check_same_bits(graph.state(), calls.state());
  check_no_reports();
}

TEST_CASE("a batch of separate masks keeps its shapes") {
  const NoHostAccess closed;
  Training graph(true, DType::kF32, false);
  for (int64_t i = 0; i < 4; ++i) CHECK(graph.run(i, 1).ran == (i < 3 ? StepReplay::Ran::kCalls : StepReplay::Ran::kRecorded));
  const LossTargets targets = graph.loss.upload_targets(small_batch(), 2, kSize, kSize, kCuda);
  CHECK(targets.overlap);
  Batch none = small_batch();
  none.targets.clear(), none.target_image.clear(), none.masks = {};
  none.overlap = false;
  CHECK(graph.loss.upload_targets(none, 2, kSize, kSize, kCuda).masks.shape() == Shape{16, kMask, kMask});
  check_no_reports();
}

// Room for objects grows by doubling and stays; what is in it is the same.
TEST_CASE("targets on a device") {
  const NoHostAccess closed;
  const SegmentationLoss criterion;
  Batch batch = small_batch();
  CHECK(criterion.upload_targets(batch, 2, kSize, kSize, Device::cpu()).objects.boxes.shape() == Shape{2, 2, 4});
  CHECK(criterion.upload_targets(batch, 2, kSize, kSize, kCuda).objects.boxes.shape() == Shape{2, 16, 4});
  for (int i = 0; i < 30; ++i) {
    batch.targets.push_back(batch.targets[0]);
    batch.target_image.push_back(1);
  }
  const LossTargets many = criterion.upload_targets(batch, 2, kSize, kSize, kCuda);
  CHECK(many.objects.boxes.shape() == Shape{2, 32, 4});
  CHECK(many.objects.boxes.narrow(1, 0, 31).to(Device::cpu()).to_vector<float>() ==
        criterion.upload_targets(batch, 2, kSize, kSize, Device::cpu()).objects.boxes.to_vector<float>());
  CHECK(criterion.upload_targets(small_batch(), 2, kSize, kSize, kCuda).objects.classes.shape() == Shape{2, 32});
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
  const RawOutputs device = on_device->forward(normalize(batch.images.to(kCuda)));
  const RawOutputs host = in_memory->forward(normalize(batch.images));
  const auto compare = [](const Variable& x, const Variable& y) {
    CHECK(x.data().device() == kCuda);
    CHECK(distance(x.data().to_vector<float>(), y.data().to_vector<float>()) <= 1e-4);
  };
  for (size_t level = 0; level < kAnchorLevels; ++level) {
    compare(device.box[level], host.box[level]);
    compare(device.cls[level], host.cls[level]);
    compare(device.coefficients[level], host.coefficients[level]);
  }
  compare(device.prototypes, host.prototypes);

  const Traffic before;
  const Prediction found = on_device_predictor.run(image), wanted = in_memory_predictor.run(image);
  const Traffic during = before.since();
  CHECK(during.copies <= 5);  // image, list of masks and of their tiles there; detections and pixels back
  check_no_reports();
  CHECK(!wanted.objects.empty());
  REQUIRE(found.objects.size() == wanted.objects.size());
  for (size_t i = 0; i < wanted.objects.size(); ++i) {
    CHECK(found.objects[i].mask.view().any());
    CHECK(found.objects[i].class_id == wanted.objects[i].class_id);
    CHECK(found.objects[i].confidence == doctest::Approx(wanted.objects[i].confidence).epsilon(1e-3));
    CHECK(found.objects[i].box.x1 == doctest::Approx(wanted.objects[i].box.x1).epsilon(1e-3));
    CHECK(found.objects[i].box.y2 == doctest::Approx(wanted.objects[i].box.y2).epsilon(1e-3));
  }
}

// A prediction in f32 of 16-bit features: the device multiplies them as they are, the host widens them; both passes differ by the
// rounding of weights and of the result's gradient, and by no more.
TEST_CASE("predictions from 16-bit features") {
  const NoHostAccess closed;
  for (const DType type : {DType::kBF16, DType::kF16}) {
    CAPTURE(name_of(type));
    struct Pass {
      std::vector<float> y, dx, dw, db;
    };
    const auto pass = [&](Device device) {
      const auto numbers = [&](const Shape& shape, uint32_t what) {
        const Tensor t = Tensor::empty(shape);
        ops::uniform(t, {11, RngPurpose::kTest, what}, -1, 1);
        return t;
      };
      Conv2d predict(32, 20, 1);
      predict.weight.data().copy_from(numbers(predict.weight.shape(), 1));
      predict.bias.data().copy_from(numbers({20}, 2));
      predict.to(device);
      const Variable x(numbers({2, 5, 7, 32}, 3).to(type).to(device), true);
      const Variable y = predict.forward_wide(x);
      CHECK(y.data().dtype() == DType::kF32);
      y.backward(numbers({2, 5, 7, 20}, 4).to(device));
      const auto values = [](const Tensor& t) { return t.to(DType::kF32).to_vector<float>(); };
      return Pass{values(y.data()), values(x.grad()), values(predict.weight.grad()), values(predict.bias.grad())};
    };
    const Pass there = pass(kCuda), here = pass(Device::cpu());
    const double rounding = type == DType::kBF16 ? 0x1p-8 : 0x1p-11;
    CHECK(distance(there.y, here.y) <= rounding);
    CHECK(distance(there.dx, here.dx) <= 2 * rounding);
    CHECK(distance(there.dw, here.dw) <= rounding);
    CHECK(distance(there.db, here.db) <= 1e-6);
    CHECK(distance(there.y, here.y) > 0);
  }
  check_no_reports();
}

// Batches of one shape are recorded once they have come a few times; others run call by call; all have the bits of the network's own
// forward pass.
TEST_CASE("the network in evaluation is replayed") {
  const NoHostAccess closed;
  const auto model = small_model(kCuda);
  set_formula_weights(*model);
  model->set_compute_type(DType::kBF16);
  model->train(false);
  model->fold();
  const NoGrad no_grad;
  const Tensor batch = small_batch().images;
  ReplayedForward forward(*model);
  const auto graphs = [] { return emulated::calls("cudaGraphLaunch"); };
  const uint64_t none = graphs();
  for (int i = 0; i < 7; ++i) {
    CAPTURE(i);
    const int64_t images = i == 5 ? 1 : 2;
    const Tensor pixels = batch.narrow(0, i % 2 == 0 || images == 2 ? 0 : 1, images);
    if (i == 4) pixels.fill(77);
    forward.place(pixels);
    const RawOutputs got = forward.run(), wanted = model->forward(Variable(pixels.to(kCuda)));
    CHECK(got.prototypes.data().to_vector<float>() == wanted.prototypes.data().to_vector<float>());
    for (size_t l = 0; l < kAnchorLevels; ++l) {
      CHECK(got.box[l].data().to_vector<float>() == wanted.box[l].data().to_vector<float>());
      CHECK(got.cls[l].data().to_vector<float>() == wanted.cls[l].data().to_vector<float>());
      CHECK(got.coefficients[l].data().to_vector<float>() == wanted.coefficients[l].data().to_vector<float>());
    }
    CHECK(graphs() - none == (i < StepReplay::kWarmUp ? 0 : i == 3 ? 1 : 2));
  }
  check_no_reports();
}

// Of one device's maps the host and the device find the same, bit for bit: boxes, scores, and masks of every size.
TEST_CASE("detections and masks of a device's maps are those of the host") {
  const NoHostAccess closed;
  const auto model = small_model(kCuda);
  set_formula_weights(*model);
  model->train(false);
  const NoGrad no_grad;
  const RawOutputs there = model->forward(normalize(small_batch().images.to(kCuda)));
  RawOutputs here;
  const auto fetched = [](const Variable& v) { return Variable(v.data().to(Device::cpu())); };
  for (size_t l = 0; l < kAnchorLevels; ++l) {
    here.box[l] = fetched(there.box[l]), here.cls[l] = fetched(there.cls[l]);
    here.coefficients[l] = fetched(there.coefficients[l]);
  }
  here.prototypes = fetched(there.prototypes);
  DetectParams params;
  params.confidence = 0.001f, params.multi_label = true, params.max_detections = 40;
  const Traffic before;
  const BatchDetections a = detect(there, model->strides(), params);
  CHECK(before.since().copies == 1);  // the table
  const BatchDetections b = detect(here, model->strides(), params);
  CHECK(a.coefficients.device() == kCuda);
  CHECK(a.coefficients.to_vector<float>() == b.coefficients.to_vector<float>());
  std::vector<std::vector<MaskItem>> lists(5);
  for (size_t image = 0; image < 2; ++image) {
    const Detections &x = a.images[image], &y = b.images[image];
    REQUIRE(y.size() > 5);
    CHECK(x.boxes == y.boxes);
    CHECK(x.scores == y.scores);
    CHECK(x.classes == y.classes);
    CHECK(x.anchors == y.anchors);
    for (int64_t i = 0; i < y.size(); ++i) {
      size_t list = 0;
      for (const MaskSize size : {MaskSize::kPrototype, MaskSize::kNetwork, MaskSize::kNative}) {
        lists[list++].push_back(mask_item(b, int64_t(image), i, kSize, kSize, size));
      }
      lists[3].push_back(native_mask_item(b, int64_t(image), i, y.boxes[size_t(i)], 150, 90));
      lists[4].push_back(native_mask_item(b, int64_t(image), i, {1, 0, 6, 9}, 9, 7));  // smaller than the prototypes
    }
  }
  for (const std::vector<MaskItem>& items : lists) {
    std::vector<MaskPatch> x(items.size()), y(items.size());
    Profiler profiler(backend_for(kCuda));
    {
      const BackendGuard guard(profiler);
      for_each_mask(a, items, [&](int64_t i, const MaskView& mask) { x[size_t(i)] = mask.copy(); });
    }
    double fetched_bytes = 0, pixels = 0, rows = 0;
    for (const auto& [key, total] : profiler.totals())
      fetched_bytes += std::get<OpKind>(key) == OpKind::kTransfer ? total.bytes : 0;
    for (const MaskItem& item : items) {
      pixels += double(item.where.width() * item.where.height());
      rows += double(item.where.height());
    }
    CHECK(fetched_bytes <= pixels / 8 + rows * sizeof(uint32_t));  // bits, but for the end of a row
    for_each_mask(b, items, [&](int64_t i, const MaskView& mask) { y[size_t(i)] = mask.copy(); });
    size_t set = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      CHECK(x[i].words == y[i].words);
      CHECK(x[i].rle() == y[i].rle());
      set += y[i].view().any();
    }
    CHECK(set > 0);
  }
  check_no_reports();
}

TEST_CASE("weights go from a device to a file and back") {
  const NoHostAccess closed;
  const TempFolder folder;
  const auto path = folder / "model.safetensors";
  const auto from = small_model(kCuda);
  write_safetensors(path, from->state_dict());
  YoloSeg to(parse_model_yaml("yolov8n-seg", {}, 2));
  to.to(kCuda);
  CHECK(to.load(read_safetensors(path).tensors).complete());
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

  // With what calls beside hold back.
  const int calls_before = cuda::side_calls();
  const auto peak = [&](int calls) {
    cuda::set_side_calls(calls);
    return MemoryPlan(request).peak_bytes(32);
  };
  request.val_images = 0;
  const int64_t in_turn = peak(0);
  CHECK(peak(1) >= in_turn);
  CHECK(peak(100) > peak(1));
  cuda::set_side_calls(calls_before);
}

}  // namespace
}  // namespace tessera::testing
