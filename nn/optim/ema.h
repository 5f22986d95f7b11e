// Exponential moving average of all parameters and running statistics (spec 8.7): ema = d*ema + (1-d)*value with
// d(u) = decay * (1 - exp(-u / tau)) at the u-th update.
#pragma once

#include <array>

#include "nn/io/state_dict.h"
#include "nn/parameter_arena.h"
#include "tensor/ops/update.h"

namespace tessera {

class Ema {
 public:
  explicit Ema(const ParameterArena& arena, double decay = 0.9999, double tau = 2000.0);

  void update();
  double decay_at(int64_t update) const;
  int64_t updates() const { return updates_; }

  // Exchanges the averages with the live values, to run the averaged model; call again to return.
  void swap();

  // For WeightUpdate, which makes the same step on the device and counts it there: decay, time constant and where the averages lie.
  void describe_update(UpdateParams& params, UpdateArrays<Tensor>& arrays) const {
    params.average_decay = decay_;
    params.average_tau = tau_;
    arrays.average = all_;
  }
  void set_updates(int64_t updates) { updates_ = updates; }

  void save(StateDict& state) const;  // "ema.<group>", "ema.updates"
  void restore(const StateDict& state);

 private:
  const ParameterArena& arena_;
  double decay_, tau_;
  int64_t updates_ = 0;
  Tensor all_;
  std::array<Tensor, kAllGroups> average_;  // slices of it
};

}  // namespace tessera
