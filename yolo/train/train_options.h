// The arguments of a training as typed values, and the automatic choices made explicit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nn/optim/schedule.h"
#include "tensor/ops/update.h"
#include "yolo/config.h"

namespace tessera {

struct TrainOptions {
  int64_t epochs = 100, batch = 16, imgsz = 640, nbs = 64;
  int64_t workers = 2, seed = 0, patience = 100, close_mosaic = 10, save_period = -1;
  double hours = 0;  // 0: no limit
  double save_minutes = 10;  // 0: after epochs only
  bool validate = true, save = true, plots = true;
  double gain_box = 7.5, gain_cls = 0.5, gain_dfl = 1.5;
  double weight_decay = 0.0005;
  double iou = 0.7;
  int64_t max_det = 300;
  bool original_map = false;
  std::vector<int32_t> frozen_layers;
  std::string project, name;
  bool exist_ok = false;
};

TrainOptions train_options(const Config& config);

// The rule and its numbers after "auto" is resolved (spec 8.3). Explicit arguments always win: an lr0, momentum or warmup_bias_lr
// that was given is kept.
struct OptimizerChoice {
  UpdateRule rule = UpdateRule::kSgd;
  double lr0 = 0.01, momentum = 0.937;  // momentum of SGD, beta1 of Adam
  double warmup_bias_lr = 0.1;
  std::string reason;  // "auto: 800 planned iterations <= 10000, 80 classes"; empty when named by the user
};
OptimizerChoice choose_optimizer(const Config& config, int64_t train_images, int64_t classes);

// weight_decay for what a batch and the accumulation make of nbs (spec 8.2).
double scaled_weight_decay(const TrainOptions& options);

ScheduleConfig schedule_config(const Config& config, const OptimizerChoice& choice, int64_t batches_per_epoch);

}  // namespace tessera
