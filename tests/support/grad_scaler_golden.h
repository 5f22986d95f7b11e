// The recorded runs of torch.amp.GradScaler (grad_scaler.json) against WeightUpdate on any device.
#pragma once

#include <doctest/doctest.h>

#include <limits>

#include "nn/optim/weight_update.h"
#include "tests/support/golden.h"

namespace tessera::testing {

struct FourWeights : Module {
  FourWeights() { parameter("weight", weight); }
  std::string kind() const override { return "FourWeights"; }
  Variable weight{Tensor::zeros({4}), true};
};

inline void check_grad_scaler(Device device) {
  const nlohmann::json golden = read_json(golden_dir() / "grad_scaler.json");
  for (const auto& [name, run] : golden.at("cases").items()) {
    CAPTURE(name);
    const auto& settings = run.at("settings");
    FourWeights module;
    module.weight.data().copy_from(Tensor::from_vector(run.at("weights").get<std::vector<float>>(), {4}));
    module.to(device);
    const ParameterArena arena(module);
    Sgd optimizer(arena, true);
    Ema ema(arena);
    WeightUpdate update(arena, optimizer, ema, {0, golden.at("decay"), 0}, golden.at("max_norm"),
                        {.on = true,
                         .initial = settings.at("init_scale"),
                         .growth = settings.at("growth_factor"),
                         .backoff = settings.at("backoff_factor"),
                         .growth_interval = settings.at("growth_interval")});
    double scale = settings.at("init_scale");
    int64_t i = 0, made = 0;
    for (const auto& step : run.at("steps")) {
      CAPTURE(i);
      std::vector<float> gradient;
      for (const auto& g : step.at("gradient")) {
        gradient.push_back(g.is_null() ? std::numeric_limits<float>::infinity() : g.get<float>() * float(scale));
      }
      module.weight.grad().copy_from(Tensor::from_vector(gradient, {4}));
      update.set({0, golden.at("lr"), 0}, golden.at("momentum"));
      update.run();
      const std::vector<double> state = update.state().to_vector<double>();
      const UpdateReport report = update.report(state.data());
      CHECK(report.made == step.at("made").get<bool>());
      CHECK(report.first_bad == (report.made ? "" : "weight"));
      CHECK(report.scale == step.at("scale").get<double>());
      CHECK(state[kGoodUpdates] == step.at("good").get<double>());
      const auto got = module.weight.data().to_vector<float>(), want = step.at("weights").get<std::vector<float>>();
      for (size_t k = 0; k < 4; ++k) CHECK(std::abs(got[k] - want[k]) <= 1e-6f);
      CHECK(module.weight.grad().to_vector<float>() == std::vector<float>(4, 0.0f));
      scale = report.scale;
      made += report.made;
      ++i;
    }
    StateDict saved;
    update.save(saved);
    CHECK(saved.at("scaler.scale").item() == scale);
    CHECK(optimizer.steps() == made);
    CHECK(ema.updates() == made);
  }
}

}  // namespace tessera::testing
