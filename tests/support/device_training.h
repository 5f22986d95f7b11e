// A small training on a device, step by step: n at 64 pixels, two images with three objects. For the emulated GPU and a real one.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "data/sample.h"
#include "nn/data_parallel.h"
#include "nn/layers/batch_norm2d.h"
#include "nn/optim/ema.h"
#include "nn/optim/optimizer.h"
#include "nn/optim/weight_update.h"
#include "nn/parameter_arena.h"
#include "tensor/backend.h"
#include "tensor/ops/random.h"
#include "yolo/model.h"
#include "yolo/train/train_step.h"

namespace tessera::testing {

inline constexpr int64_t kSize = 64, kMask = kSize / 4;
inline const Device kCuda = Device::cuda();

// Three objects in two images.
inline Batch small_batch() {
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

// Two objects in each of some images of `size` pixels.
inline Batch batch_of(int64_t images, int64_t size) {
  Batch batch;
  const Tensor noise = Tensor::empty({images, size, size, 3});
  ops::uniform(noise, {7, RngPurpose::kTest, 2}, 0.0, 256.0);
  batch.images = noise.to(DType::kU8);
  const int64_t mask = size / 4;
  batch.masks = Tensor::zeros({images, mask, mask}, DType::kI32);
  for (int64_t n = 0; n < images; ++n) {
    const float at = 0.02f * float(n % 8);
    batch.targets.push_back({int32_t(n % 2), {0.30f + at, 0.35f, 0.40f, 0.50f}});
    batch.targets.push_back({1, {0.70f, 0.60f + at, 0.15f, 0.20f}});
    batch.target_image.insert(batch.target_image.end(), 2, int32_t(n));
    for (int64_t y = 0; y < mask; ++y) {
      for (int64_t x = 0; x < mask; ++x) batch.masks.data<int32_t>()[(n * mask + y) * mask + x] = x < mask / 2 ? 1 : 2;
    }
  }
  return batch;
}

inline std::unique_ptr<YoloSeg> small_model(Device device) {
  auto model = std::make_unique<YoloSeg>(parse_model_yaml("yolov8n-seg", {}, 2));
  model->init(3);
  model->to(device);
  return model;
}

// A training of its own: everything that a step changes. Of several ranks one part.
struct Training {
  explicit Training(bool graph, DType type = DType::kF32, bool overlap = true, Communicator& all_ranks = single_process(),
                    bool sync_bn = false, bool recompute = false)
      : world(all_ranks),
        model(small_model(kCuda)),
        step(*model, loss, ranks, update,
             StepReplay(
                 graph ? StepReplay::MakeRecorder([] { return backend_for(kCuda).recorder(); }) : StepReplay::MakeRecorder(),
                 [this](const std::string& line) { log.push_back(line); }, all_ranks),
             !sync_bn),
        overlapping(overlap) {
    model->set_compute_type(type);
    model->set_recompute(recompute);
    if (sync_bn) synchronize_batch_norm(*model, world);
  }

  // Images 0 .. n-1 of the small batch; every second step adds gradients only, once there have been some.
  StepResult run(int64_t index, int64_t images = 2) {
    Batch batch = small_batch();
    batch.images = batch.images.narrow(0, 0, images);
    batch.masks = batch.masks.narrow(0, 0, images);
    batch.images.data<uint8_t>()[index] = uint8_t(7 * index + 100 * world.rank());
    if (images == 1) batch.targets.pop_back(), batch.target_image.pop_back();
    if (!overlapping) {
      batch.overlap = false;
      batch.masks = Tensor::full({int64_t(batch.targets.size()), kMask, kMask}, 1, DType::kI32);
    }
    return run(index, batch);
  }
  StepResult run(int64_t index, const Batch& batch) {
    ScheduleValues values;
    values.lr.fill(1e-2 / double(index + 1));
    values.momentum = 0.8 + 0.01 * double(index);
    return step.run(batch, values, index < 4 || index % 2 == 0);
  }
  StateDict state() {
    StateDict all;
    StateDict parts;
    update.save(parts);
    optimizer.save(parts);
    ema.save(parts);
    for (const auto& [name, t] : model->state_dict()) parts.add("model." + name, t);
    parts.add("gradients", arena.all_grads());
    for (const auto& [name, t] : parts) all.add(name, t.to(Device::cpu()));
    return all;
  }

  Communicator& world;
  std::vector<std::string> log;
  std::unique_ptr<YoloSeg> model;
  ParameterArena arena{*model};
  Sgd optimizer{arena, true};
  Ema ema{arena};
  SegmentationLoss loss{{}, {8, 16, 32}, &world};
  DataParallel ranks{arena, world, 1 << 20};
  WeightUpdate update{arena, optimizer, ema, {0, 5e-4, 0}, 10, {.on = true, .initial = 128, .growth_interval = 3}};
  TrainStep step;
  bool overlapping;
};

inline void check_same_bits(const StateDict& a, const StateDict& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, t] : a) {
    CAPTURE(name);
    CHECK(std::memcmp(t.raw(), b.at(name).raw(), size_t(t.numel()) * size_of(t.dtype())) == 0);
  }
}

}  // namespace tessera::testing
