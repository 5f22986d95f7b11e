// All that a training needs to go on to the same bits, saved to a checkpoint and restored from it: where it stands, weights,
// gradients that are being accumulated, optimizer, averages. Random numbers need no state: they follow from (seed, epoch, index).
#pragma once

#include <cstdint>
#include <string>

#include "nn/io/checkpoint.h"
#include "nn/optim/ema.h"
#include "nn/optim/optimizer.h"
#include "nn/optim/weight_update.h"
#include "nn/parameter_arena.h"
#include "yolo/metrics.h"
#include "yolo/model.h"
#include "yolo/train/best_epoch.h"

namespace tessera {

struct TrainProgress {
  int64_t epoch = 0;          // 0-based, in work
  int64_t batch = 0;          // batches of this epoch done
  int64_t last_step = -1;     // global batch index of the last optimizer step
  int64_t skipped_steps = 0;  // updates left out because a gradient was not finite
  LossItems running;          // mean of the logged items over the batches of this epoch
  double seconds = 0;         // of training so far, over all sittings
  BestEpoch best;
};

void save_progress(const TrainProgress& progress, CheckpointMeta& meta);
TrainProgress progress_of(const CheckpointMeta& meta);
// For a resume with another number of batches an epoch, `now` instead of `then`: the training stays in the same epoch, and as many
// batches have passed since the last update.
void change_batches(TrainProgress& progress, int64_t then, int64_t now);

// The tensors of that state. They stay the training's own; this class reads and writes them.
class TrainState {
 public:
  TrainState(YoloSeg& model, const ParameterArena& arena, WeightUpdate& update, Optimizer& optimizer, Ema& ema)
      : model_(model), arena_(arena), update_(update), optimizer_(optimizer), ema_(ema) {}

  StateDict averaged_weights() const;  // a copy, in file layout
  // The averaged weights as the file's model, and the sections that a resume needs.
  void save(Checkpoint& checkpoint) const;
  // Error(kData) that names `file` when it does not fit.
  void restore(const Checkpoint& checkpoint, const std::string& file) const;

 private:
  YoloSeg& model_;
  const ParameterArena& arena_;
  WeightUpdate& update_;
  Optimizer& optimizer_;
  Ema& ema_;
};

}  // namespace tessera
