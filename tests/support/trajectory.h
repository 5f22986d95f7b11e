// Ten steps of the original's optimizer set-up on a fixed batch (trajectory_n.json): warm-up, accumulation, clipping, SGD and
// AdamW, EMA.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "nn/data_parallel.h"
#include "nn/optim/schedule.h"
#include "nn/optim/weight_update.h"
#include "tests/train/golden_batch.h"
#include "tests/yolo/formula_model.h"
#include "yolo/train/loss.h"

namespace tessera::testing {

struct Checksum {
  double sum = 0, norm = 0;
};

inline Checksum checksum(const Tensor& t) {
  Checksum c;
  double squares = 0;
  for (float x : t.to_vector<float>()) c.sum += double(x), squares += double(x) * double(x);
  c.norm = std::sqrt(squares);
  return c;
}

inline void check_checksums(const nlohmann::json& expected, const StateDict& state, double tolerance) {
  for (const auto& [name, values] : expected.items()) {
    const Checksum c = checksum(state.at(name));
    CAPTURE(name);
    CHECK(std::abs(c.norm - values[1].get<double>()) <= tolerance * values[1].get<double>());
  }
}

// Ten steps of `kind` (warmup, plain, adamw) as a training makes them, on any device. Tolerance of the items relative: about ten
// times what PyTorch's own float32 shows against its float64 (tools/golden/README.md); an update at this learning rate amplifies
// rounding from step to step. It may tip one assignment in one of the steps: then the number of positives differs by one, and the
// items by what one of some fifty positives contributes.
inline void check_trajectory(const std::string& kind, double item_tolerance, Device device) {
  const auto golden = read_safetensors(golden_dir() / "train_step_n.safetensors");
  const nlohmann::json expected = read_json(golden_dir() / "trajectory_n.json").at(kind);
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 3));
  set_formula_weights(model);
  model.to(device);
  const ParameterArena arena(model);
  Ema ema(arena);
  const Batch batch = golden_batch(golden);
  const Variable images(formula_image(3, 96, 96).to(device));
  const SegmentationLoss criterion;

  ScheduleConfig config;
  config.batch = 3;
  config.batches_per_epoch = 10;
  const Schedule warmup(config);
  std::unique_ptr<Optimizer> optimizer;
  if (kind == "adamw") {
    optimizer = std::make_unique<Adam>(arena, true, 0.9);
  } else {
    optimizer = std::make_unique<Sgd>(arena, true);
  }

  const double decay = expected.at("decay").get<double>();
  WeightUpdate update(arena, *optimizer, ema, {0, decay, 0}, 10);
  int64_t last_step = -1, i = 0, tipped = 0;
  for (const auto& step : expected.at("steps")) {
    CAPTURE(kind);
    CAPTURE(i);
    ScheduleValues now = warmup.at(0, i);
    if (kind == "warmup") {
      for (size_t g = 0; g < 3; ++g) CHECK(now.lr[g] == doctest::Approx(step.at("lr")[g].get<double>()).epsilon(1e-12));
      CHECK(now.momentum == doctest::Approx(step.at("momentum").get<double>()).epsilon(1e-12));
    } else {
      now.lr.fill(step.at("lr")[0].get<double>());
      now.momentum = 0.937;
      now.accumulate = 1;
    }
    CHECK(now.accumulate == step.at("accumulate").get<int64_t>());
    const LossResult loss = criterion(model.forward(images), batch);
    const LossReport report = loss.report();
    const LossItems& logged = report.items;
    const double items[] = {logged.box, logged.seg, logged.cls, logged.dfl};
    const auto positives = step.at("positives").get<int64_t>();
    CHECK(std::abs(report.positives - positives) <= 1);
    if (report.positives != positives) ++tipped;
    const double tolerance = report.positives == positives ? item_tolerance : std::max(item_tolerance, 1.0 / double(positives));
    for (size_t k = 0; k < 4; ++k) CHECK(std::abs(items[k] / step.at("items")[k].get<double>() - 1) <= tolerance);
    DataParallel(arena, single_process()).backward(loss.total, update.loss_seed());
    const bool stepped = i - last_step >= now.accumulate;
    CHECK(stepped == step.at("stepped").get<bool>());
    if (stepped) {
      update.set(now.lr, now.momentum);
      update.run();
      last_step = i;
    }
    ++i;
  }
  CHECK(tipped <= 1);
  StateDict counters;
  update.save(counters);
  CHECK(ema.updates() == expected.at("ema_updates").get<int64_t>());
  check_checksums(expected.at("weights"), model.state_dict(), 1e-3);
  ema.swap();
  check_checksums(expected.at("ema"), model.state_dict(), 1e-3);
}

}  // namespace tessera::testing
