// An update in one call against its parts one by one, and its state on the way through a checkpoint.
#include "nn/optim/weight_update.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "nn/layers/conv_bn_act.h"
#include "tensor/ops/random.h"
#include "tests/support/error_of.h"
#include "tests/support/grad_scaler_golden.h"

using namespace tessera;

namespace {

constexpr double kMaxNorm = 3, kDecay = 0.02;

// A block with the same numbers each time, and what a training keeps of it.
struct Setup {
  explicit Setup(UpdateRule rule) {
    const Tensor w = block.conv.weight.data();
    ops::uniform(w, {5, RngPurpose::kTest, 1}, -1, 1);
    arena = std::make_unique<ParameterArena>(block);
    if (rule == UpdateRule::kSgd) {
      optimizer = std::make_unique<Sgd>(*arena, true);
    } else {
      optimizer = std::make_unique<Adam>(*arena, rule == UpdateRule::kAdamW, 0.9);
    }
    ema = std::make_unique<Ema>(*arena, 0.9, 5);
  }
  void gradients(uint64_t step, double scale = 1) const {
    for (ParamGroup g : {ParamGroup::kBias, ParamGroup::kWeight, ParamGroup::kNorm}) {
      for (const auto& e : arena->entries(g)) {
        ops::uniform(arena->grads(g).narrow(0, e.offset, e.count), {step, RngPurpose::kTest, uint32_t(g)}, -scale, scale);
      }
    }
    block.bn.running_mean.fill(double(step));  // a buffer, which only the average follows
  }
  std::vector<float> everything() {
    std::vector<float> all = arena->all_values().to_vector<float>();
    ema->swap();
    for (float v : arena->all_values().to_vector<float>()) all.push_back(v);
    ema->swap();
    StateDict state;
    optimizer->save(state);
    for (const auto& [name, t] : state) {
      for (float v : t.to(DType::kF32).to_vector<float>()) all.push_back(v);
    }
    return all;
  }

  ConvBnAct block{5, 9, 3};
  std::unique_ptr<ParameterArena> arena;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Ema> ema;
};

std::array<double, kTrainedGroups> rates(int64_t step) { return {0.1 / double(step), 0.01, 0.02}; }

}  // namespace

TEST_CASE("the scale of the loss goes as torch.amp.GradScaler's") { testing::check_grad_scaler(Device::cpu()); }

TEST_CASE("an update in one call has the bits of its parts one by one") {
  for (UpdateRule rule : {UpdateRule::kSgd, UpdateRule::kAdam, UpdateRule::kAdamW}) {
    CAPTURE(int(rule));
    Setup whole(rule), parts(rule);
    WeightUpdate update(*whole.arena, *whole.optimizer, *whole.ema, {0, kDecay, 0}, kMaxNorm);
    for (int64_t step = 1; step <= 4; ++step) {
      whole.gradients(uint64_t(step), 5);
      update.set(rates(step), 0.8);
      update.run();
      const UpdateReport report = update.report(update.state().to_vector<double>().data());

      parts.gradients(uint64_t(step), 5);
      const double norm = parts.arena->grad_norm();
      StepInfo info;
      info.lr = rates(step);
      info.momentum = 0.8;
      info.weight_decay[size_t(ParamGroup::kWeight)] = kDecay;
      info.grad_scale = std::min(1.0, kMaxNorm / (norm + 1e-6));
      parts.optimizer->step(info);
      parts.arena->zero_grad();
      parts.ema->update();

      CHECK(info.grad_scale < 1);
      CHECK(report.made);
      CHECK(report.norm == norm);
      StateDict ignored;
      update.save(ignored);
      CHECK(whole.everything() == parts.everything());
      CHECK(whole.ema->updates() == step);
    }
  }
}

TEST_CASE("an update that is left out changes nothing and names the parameter") {
  Setup s(UpdateRule::kAdamW);
  WeightUpdate update(*s.arena, *s.optimizer, *s.ema, {0, kDecay, 0}, kMaxNorm);
  s.gradients(1);
  update.set(rates(1), 0.8);
  update.run();
  StateDict ignored;
  update.save(ignored);
  const std::vector<float> before = s.everything();
  for (double bad : {double(INFINITY), -double(INFINITY), double(NAN)}) {
    s.gradients(1);
    s.block.bn.weight.grad().narrow(0, 3, 1).fill(bad);
    s.block.conv.weight.grad().narrow(0, 8, 1).fill(bad);
    update.run();
    const UpdateReport report = update.report(update.state().to_vector<double>().data());
    CHECK_FALSE(report.made);
    CHECK(report.first_bad == "conv.weight");
    CHECK(report.scale == 1);
    update.save(ignored);
    CHECK(s.everything() == before);
    CHECK(s.arena->grad_norm() == 0);
  }
}

TEST_CASE("a restored update goes on with the same bits, scale and all") {
  const LossScaling scaling{.on = true, .initial = 512, .growth_interval = 3};
  const auto steps = [](Setup& s, WeightUpdate& update, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      s.gradients(uint64_t(i), 100);
      if (i == 3) s.arena->all_grads().narrow(0, 0, 1).fill(INFINITY);
      update.set(rates(i), 0.8);
      update.run();
    }
  };
  UpdateRule rule = UpdateRule::kAdam;
  SUBCASE("Adam") {}
  SUBCASE("SGD") { rule = UpdateRule::kSgd; }
  Setup a(rule), b(rule);
  WeightUpdate whole(*a.arena, *a.optimizer, *a.ema, {}, kMaxNorm, scaling);
  steps(a, whole, 1, 6);
  StateDict saved_update, saved_optimizer, saved_ema;
  whole.save(saved_update);
  a.optimizer->save(saved_optimizer);
  a.ema->save(saved_ema);
  b.arena->all_values().copy_from(a.arena->all_values());

  WeightUpdate resumed(*b.arena, *b.optimizer, *b.ema, {}, kMaxNorm, scaling);
  b.optimizer->restore(saved_optimizer);
  b.ema->restore(saved_ema);
  CHECK(b.ema->updates() == a.ema->updates());
  resumed.restore(saved_update);
  CHECK(resumed.state().to_vector<double>()[kScale] == 256);
  CHECK(resumed.state().to_vector<double>()[kGoodUpdates] == 2);
  steps(a, whole, 6, 9);
  steps(b, resumed, 6, 9);
  StateDict end_a, end_b;
  whole.save(end_a);
  resumed.save(end_b);
  CHECK(a.everything() == b.everything());
  CHECK(end_a.at("scaler.scale").item() == 512);
  CHECK(end_b.at("scaler.scale").item() == 512);
  CHECK(end_b.at("scaler.good_updates").item() == end_a.at("scaler.good_updates").item());

  // A checkpoint of a run without a scale, or from before there was one.
  resumed.restore({});
  CHECK(resumed.state().to_vector<double>()[kScale] == 512);

  // What counts nothing, or is no single number.
  const auto refused = [](StateDict& state, const char* name, const Tensor& value, const auto& restore) {
    state.set(name, value);
    CAPTURE(describe(value));
    CHECK(testing::error_of([&] { restore(state); }).code() == ErrorCode::kData);
  };
  for (const Tensor& value : {Tensor::full({2}, 3), Tensor::scalar(1e300, DType::kF64), Tensor::scalar(NAN), Tensor::scalar(-1)}) {
    refused(saved_optimizer, "optimizer.steps", value, [&](const StateDict& state) { b.optimizer->restore(state); });
    refused(saved_ema, "ema.updates", value, [&](const StateDict& state) { b.ema->restore(state); });
    refused(saved_update, "scaler.good_updates", value, [&](const StateDict& state) { resumed.restore(state); });
  }
}
