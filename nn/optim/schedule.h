// Learning rate, momentum and accumulation as pure functions of the step (spec 8.2 to 8.5).
#pragma once

#include <array>
#include <cstdint>

#include "nn/parameter_arena.h"

namespace tessera {

struct ScheduleConfig {
  double lr0 = 0.01;              // initial learning rate
  double lrf = 0.01;              // final rate = lr0 * lrf
  bool cosine = false;
  int64_t epochs = 100;
  int64_t batches_per_epoch = 1;
  int64_t batch = 16;
  int64_t nbs = 64;               // nominal batch size: gradients of several batches are accumulated up to so many images
  double momentum = 0.937;
  double warmup_epochs = 3.0;
  double warmup_momentum = 0.8;
  double warmup_bias_lr = 0.1;
};

struct ScheduleValues {
  std::array<double, kTrainedGroups> lr{};
  double momentum = 0.0;
  int64_t accumulate = 1;  // batches for each optimizer step
};

class Schedule {
 public:
  explicit Schedule(const ScheduleConfig& config);
  // Factor on lr0 in epoch e (0-based): linear max(1 - e/E, 0) * (1 - lrf) + lrf, or the half cosine from 1 to lrf.
  double factor(int64_t epoch) const;
  // Values at batch `index` of epoch e. During warm-up (index + nb*e <= max(round(warmup_epochs * nb), 100)) they are interpolated.
  ScheduleValues at(int64_t epoch, int64_t index) const;

 private:
  ScheduleConfig c_;
  int64_t warmup_;  // batches; -1: no warm-up
};

}  // namespace tessera
