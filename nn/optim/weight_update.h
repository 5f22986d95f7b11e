// One update of a training in one call: gradient norm, clip, finite check, step of the optimizer, moving average, zeroed gradients,
// and the scale of the loss (formulas: tensor/ops/update.h, the steps' in optim.h). A device does all of it by itself: what changes
// from step to step lies there as numbers, an update whose gradients are not finite is left out there, and the host may read
// afterwards what happened.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "nn/optim/ema.h"
#include "nn/optim/optimizer.h"

namespace tessera {

// Keeps small gradients out of the zeros of fp16: the loss is multiplied, the gradients are divided before they are used. As
// torch.amp.GradScaler: doubled after 2000 good updates, halved after one that was not finite.
struct LossScaling {
  bool on = false;  // off: the scale is 1 and stays
  double initial = 65536, growth = 2, backoff = 0.5;
  int64_t growth_interval = 2000;
};

struct UpdateReport {
  bool made = true;       // false: a gradient was not finite, weights and averages stay as they were
  double norm = 0;        // of the gradients before they were clipped
  double scale = 1;       // of the next loss
  std::string first_bad;  // the first parameter, in group order, whose gradient was not finite; empty: none
};

class WeightUpdate {
 public:
  // max_norm: gradients are clipped to it; 0: never.
  WeightUpdate(const ParameterArena& arena, Optimizer& optimizer, Ema& ema, const std::array<double, kTrainedGroups>& weight_decay,
               double max_norm, const LossScaling& scaling = {});

  // The numbers of the next update: learning rates, momentum of SGD. All that the device needs of the host; complete on return.
  void set(const std::array<double, kTrainedGroups>& lr, double momentum);
  Tensor loss_seed() const;  // gradient of the scaled loss by the loss itself; undefined where that is 1
  void run() const;          // neither of these waits or copies

  const ParameterArena& arena() const { return arena_; }
  // f64 (kUpdateSlots) on the device: what run() leaves, and its meaning once it is fetched.
  const Tensor& state() const { return state_; }
  UpdateReport report(const double* state) const;

  // Optimizer and averages have counted nothing meanwhile: tells them before they are saved, and asks them after they are restored.
  // The scale is of this class ("scaler.scale", "scaler.good_updates"); a state without it begins anew.
  void save(StateDict& state) const;
  void restore(const StateDict& state);

 private:
  void set_state(double updates, double scale, double good);

  const ParameterArena& arena_;
  Optimizer& optimizer_;
  Ema& ema_;
  LossScaling scaling_;
  UpdateParams params_;
  UpdateArrays<Tensor> arrays_;
  Tensor settings_, state_;
};

}  // namespace tessera
