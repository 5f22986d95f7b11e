#include "yolo/train/self_test.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "autograd/functions/conv.h"
#include "autograd/functions/norm.h"
#include "autograd/functions/pool.h"
#include "autograd/gradcheck.h"
#include "nn/parameter_arena.h"
#include "tensor/backend.h"
#include "tensor/base/parallel.h"
#include "tensor/ops/random.h"
#include "yolo/model.h"
#include "yolo/train/loss.h"

namespace tessera {

namespace {

Batch tiny_batch(uint64_t seed) {
  constexpr int64_t kImages = 2, kSize = 64, kMask = 16;
  Batch batch;
  const Tensor noise = Tensor::empty({kImages, kSize, kSize, 3});
  ops::uniform(noise, {seed, RngPurpose::kTest, 1}, 0.0, 256.0);
  batch.images = noise.to(DType::kU8);
  batch.targets = {{1, {0.30f, 0.35f, 0.45f, 0.50f}}, {0, {0.60f, 0.55f, 0.55f, 0.60f}}, {1, {0.50f, 0.45f, 0.85f, 0.70f}}};
  batch.target_image = {0, 0, 1};
  batch.masks = Tensor::zeros({kImages, kMask, kMask}, DType::kI32);
  int32_t* mask = batch.masks.data<int32_t>();
  for (int64_t y = 3; y < 12; ++y) {
    for (int64_t x = 2; x < 13; ++x) {
      mask[y * kMask + x] = y < 8 ? 1 : 2;
      mask[kMask * kMask + y * kMask + x] = 1;
    }
  }
  return batch;
}

struct StepResult {
  double loss = 0;
  std::vector<Tensor> grads;
};

StepResult training_step(uint64_t seed) {
  YoloSeg model(parse_model_yaml("yolov8n-seg", {}, 2));
  model.init(seed);
  const ParameterArena arena(model);
  const SegmentationLoss criterion;
  const LossResult loss = criterion(model.forward(normalize(tiny_batch(seed).images)), tiny_batch(seed));
  loss.total.backward();
  StepResult r;
  r.loss = loss.total.data().item();
  for (int g = 0; g < kTrainedGroups; ++g) r.grads.push_back(arena.grads(ParamGroup(g)).clone());
  return r;
}

bool same_bits(const StepResult& a, const StepResult& b) {
  if (a.loss != b.loss) return false;
  for (size_t g = 0; g < a.grads.size(); ++g) {
    if (a.grads[g].to_vector<float>() != b.grads[g].to_vector<float>()) return false;
  }
  return true;
}

SelfTestCheck check_gradients(const std::string& name, const std::function<Variable(const std::vector<Variable>&)>& f,
                              const std::vector<Shape>& shapes, uint64_t seed) {
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    inputs.push_back(Tensor::empty(shapes[i], DType::kF64));
    BackendGuard guard(*find_backend("ref"));
    ops::uniform(inputs.back(), {seed, RngPurpose::kTest, uint32_t(10 + i)}, -2.0, 2.0);
  }
  const GradCheckResult r = gradcheck(f, inputs, {1e-3, 1e-6});
  return {"gradient of " + name, r.ok, fmt::format("max error {:.1e}", r.max_error)};
}

}  // namespace

std::vector<SelfTestCheck> run_self_test(uint64_t seed) {
  std::vector<SelfTestCheck> checks;
  checks.push_back(check_gradients("convolution", [](const auto& v) { return ag::conv2d(v[0], v[1], v[2], {2, 1}); },
                                   {{1, 5, 6, 3}, {2, 3, 3, 3}, {2}}, seed));
  checks.push_back(check_gradients("batch norm + SiLU", [](const auto& v) {
    const ag::BatchNormState state{Tensor::zeros({3}, DType::kF64), Tensor::full({3}, 1.0, DType::kF64), 0.03, 1e-3};
    return ag::batch_norm_train(v[0], v[1], v[2], state, Activation::kSilu);
  }, {{2, 3, 2, 3}, {3}, {3}}, seed));
  checks.push_back(check_gradients("max pooling", [](const auto& v) { return ag::max_pool2d(v[0], {5, 1, 2}); }, {{1, 6, 5, 2}}, seed));

  const StepResult fast = training_step(seed);
  {
    BackendGuard guard(*find_backend("ref"));
    const StepResult plain = training_step(seed);
    double worst = 0, scale = 0;
    for (size_t g = 0; g < plain.grads.size(); ++g) {
      const auto a = plain.grads[g].to_vector<float>(), b = fast.grads[g].to_vector<float>();
      for (size_t i = 0; i < a.size(); ++i) {
        worst = std::max(worst, double(std::abs(a[i] - b[i])));
        scale = std::max(scale, double(std::abs(a[i])));
      }
    }
    checks.push_back({"training step: the active backend against the reference",
                      worst <= 2e-3 * scale && std::abs(plain.loss - fast.loss) <= 1e-4 * std::abs(plain.loss),
                      fmt::format("largest gradient difference {:.1e} of {:.1e}, loss {:.6f} and {:.6f}", worst, scale, fast.loss, plain.loss)});
  }
  checks.push_back({"two runs of one step are bitwise equal", same_bits(fast, training_step(seed)), ""});
  const int threads = compute_threads();
  for (int n : {1, 3}) {
    set_compute_threads(n);
    checks.push_back({fmt::format("{} thread{}: the same bits as with {}", n, n == 1 ? "" : "s", threads), same_bits(fast, training_step(seed)), ""});
  }
  set_compute_threads(threads);
  return checks;
}

}  // namespace tessera
