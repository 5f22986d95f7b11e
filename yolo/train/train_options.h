// The arguments of a training as typed values, and the automatic choices made explicit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nn/io/checkpoint.h"
#include "nn/optim/schedule.h"
#include "tensor/ops/update.h"
#include "yolo/config.h"
#include "yolo/train/loss.h"

namespace tessera {

struct TrainOptions {
  int64_t epochs = 100;
  int64_t batch = 16;            // images of a batch, of all ranks together
  int64_t nbs = 64;              // images of an update: gradients of batches are accumulated up to so many
  int64_t imgsz = 640;           // pixels a side, a multiple of 32
  int64_t workers = 2;           // threads of the loader
  int64_t seed = 0;
  std::string best = "fitness";  // metric that epochs are compared by
  int64_t patience = 100;        // epochs without a better one before the run ends; 0: no limit
  int64_t save_period = -1;      // epochs between checkpoints that are kept; below 1: none
  std::vector<int32_t> frozen_layers;
  double hours = 0;          // 0: no limit
  double save_minutes = 10;  // 0: after epochs only
  bool validate = true, save = true, plots = true;
  LossGains gains;
  double weight_decay = 0.0005;  // for a batch of nbs
  double iou = 0.7;              // of validation: overlap above which a detection is suppressed
  int64_t max_det = 300;         // an image
  bool original_map = false;     // figures as the original computes them, not COCO's
  std::string project, name;
  bool exist_ok = false;
  bool multi_scale = false;  // of batches
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
// `resumed`: the checkpoint of a run, whose choice stays though there may be more or fewer epochs and images now.
OptimizerChoice choose_optimizer(const Config& config, int64_t train_images, int64_t classes,
                                 const CheckpointMeta* resumed = nullptr);
void save_choice(const OptimizerChoice& choice, CheckpointMeta& meta);
bool restore_choice(const CheckpointMeta& meta, OptimizerChoice& choice,
                    const std::filesystem::path& file);  // false: an older file

// weight_decay, which is given for updates of nbs images, for the images that an update has: batch times accumulated batches (spec
// 8.2).
double scaled_weight_decay(const TrainOptions& options);

ScheduleConfig schedule_config(const Config& config, const OptimizerChoice& choice, int64_t batches_per_epoch);

}  // namespace tessera
