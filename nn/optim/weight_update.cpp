#include "nn/optim/weight_update.h"

#include <cmath>

#include "tensor/backend.h"

namespace tessera {

WeightUpdate::WeightUpdate(const ParameterArena& arena, Optimizer& optimizer, Ema& ema,
                           const std::array<double, kTrainedGroups>& weight_decay, double max_norm, const LossScaling& scaling)
    : arena_(arena), optimizer_(optimizer), ema_(ema), scaling_(scaling) {
  optimizer.describe_update(params_, arrays_);
  ema.describe_update(params_, arrays_);
  arrays_.values = arena.all_values();
  arrays_.grads = arena.all_grads();
  arrays_.ends = arena.ends();
  params_.weight_decay = weight_decay;
  params_.max_norm = max_norm;
  params_.growth = scaling.growth;
  params_.backoff = scaling.backoff;
  params_.growth_interval = scaling.on ? scaling.growth_interval : 0;
  const Device device = arena.all_values().device();
  settings_ = Tensor::zeros({kUpdateSettings}, DType::kF64, device);
  state_ = Tensor::zeros({kUpdateSlots}, DType::kF64, device);
  set_state(double(optimizer.steps()), scaling.on ? scaling.initial : 1, 0);
}

void WeightUpdate::set(const std::array<double, kTrainedGroups>& lr, double momentum) {
  const std::array<double, kUpdateSettings> numbers{lr[0], lr[1], lr[2], momentum};
  backend_for(settings_.device()).upload(settings_.raw(), numbers.data(), sizeof numbers);
}

void WeightUpdate::set_state(double updates, double scale, double good) {
  state_.copy_from(Tensor::from_vector(std::vector<double>{updates, scale, good, 0, -1}, {kUpdateSlots}));
}

Tensor WeightUpdate::loss_seed() const { return scaling_.on ? state_.narrow(0, kScale, 1).view({}).to(DType::kF32) : Tensor{}; }

void WeightUpdate::run() const { ops::update(arrays_, settings_, state_, params_); }

UpdateReport WeightUpdate::report(const double* state) const {
  UpdateReport r;
  r.norm = state[kGradNorm];
  r.made = std::isfinite(r.norm);
  r.scale = state[kScale];
  if (r.made) return r;
  const ParameterArena::Entry* bad = arena_.entry_at(int64_t(state[kFirstBad]));
  TESSERA_CHECK(bad != nullptr, "update: a gradient at {} that is not finite belongs to no parameter", state[kFirstBad]);
  r.first_bad = bad->name;
  return r;
}

void WeightUpdate::save(StateDict& state) const {
  const std::vector<double> now = state_.to_vector<double>();
  optimizer_.set_steps(int64_t(now[kUpdates]));
  ema_.set_updates(int64_t(now[kUpdates]));
  state.set("scaler.scale", Tensor::scalar(now[kScale], DType::kF64));
  state.set("scaler.good_updates", Tensor::scalar(now[kGoodUpdates], DType::kI64));
}

void WeightUpdate::restore(const StateDict& state) {
  constexpr const char *kScaleName = "scaler.scale", *kGoodName = "scaler.good_updates";
  const bool saved = scaling_.on && state.contains(kScaleName) && state.contains(kGoodName);
  set_state(double(optimizer_.steps()),
            saved         ? saved_number(state, kScaleName)
            : scaling_.on ? scaling_.initial
                          : 1,
            saved ? double(saved_count(state, kGoodName)) : 0);
}

}  // namespace tessera
