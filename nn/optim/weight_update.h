// One update of a training in one call: gradient norm, clipping, finite check, optimizer step, moving average, zeroed gradients,
// and the scale of the loss (formulas: tensor/ops/update.h and tensor/ops/optim.h). A device does all of it without the host: the
// numbers that change from step to step lie in its memory, it skips an update whose gradients are not finite by itself, and the
// host reads afterwards what happened.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "nn/optim/ema.h"
#include "nn/optim/optimizer.h"

namespace tessera {

// Loss scaling, which keeps small gradients from becoming zero in fp16: the loss is multiplied by a scale, and the gradients are
// divided by it before they are used. As in torch.amp.GradScaler the scale is doubled after 2000 good updates and halved after one
// that was not finite.
struct LossScaling {
  bool on = false;  // off: the scale is 1 and stays
  double initial = 65536, growth = 2, backoff = 0.5;
  int64_t growth_interval = 2000;
};

struct UpdateReport {
  bool made = true;       // false: a gradient was not finite, and weights and averages stay as they were
  double norm = 0;        // L2 norm of the gradients before they were clipped
  double scale = 1;       // that the next loss is multiplied by
  std::string first_bad;  // the first parameter, in group order, whose gradient was not finite; empty: none
};

class WeightUpdate {
 public:
  // max_norm: gradients are clipped to it; 0: never.
  WeightUpdate(const ParameterArena& arena, Optimizer& optimizer, Ema& ema, const std::array<double, kTrainedGroups>& weight_decay,
               double max_norm, const LossScaling& scaling = {});

  // Learning rates and momentum (of SGD) of the next update: all that the device needs to be told. Uploaded on return.
  void set(const std::array<double, kTrainedGroups>& lr, double momentum);
  // The seed of the backward pass: the scale of the loss, or undefined where that is 1.
  Tensor loss_seed() const;
  // Makes the update. Like loss_seed() it neither waits nor copies, so both may be recorded.
  void run() const;

  const ParameterArena& arena() const { return arena_; }
  // f64 (kUpdateSlots) on the device: the state that run() leaves. report() says what it means once it is on the host.
  const Tensor& state() const { return state_; }
  UpdateReport report(const double* state) const;

  // The updates are counted on the device. So save() tells optimizer and averages their number, and comes before theirs; restore()
  // asks them, and comes after theirs. The scale is saved here ("scaler.scale", "scaler.good_updates"); a state without it starts
  // with the initial scale.
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
