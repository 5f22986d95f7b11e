#include "nn/optim/ema.h"

#include <algorithm>
#include <cmath>

#include "tensor/ops/optim.h"

namespace tessera {

Ema::Ema(const ParameterArena& arena, double decay, double tau) : arena_(arena), decay_(decay), tau_(tau) {
  all_ = arena.all_values().clone();
  for (int g = 0; g < kAllGroups; ++g) average_[size_t(g)] = arena.part(all_, ParamGroup(g));
}

double Ema::decay_at(int64_t update) const { return decay_ * (1.0 - std::exp(-double(update) / tau_)); }

void Ema::update() {
  ++updates_;
  const double d = decay_at(updates_);
  for (int g = 0; g < kAllGroups; ++g) ops::lerp(average_[size_t(g)], arena_.values(ParamGroup(g)), 1.0 - d);
}

void Ema::swap() {
  for (int g = 0; g < kAllGroups; ++g) {
    const Tensor live = arena_.values(ParamGroup(g));
    const Tensor kept = live.clone();
    live.copy_from(average_[size_t(g)]);
    average_[size_t(g)].copy_from(kept);
  }
}

void Ema::save(StateDict& state) const {
  for (int g = 0; g < kAllGroups; ++g) state.set(fmt::format("ema.{}", g), average_[size_t(g)]);
  state.set("ema.updates", Tensor::scalar(double(updates_), DType::kI64));
}

void Ema::restore(const StateDict& state) {
  for (int g = 0; g < kAllGroups; ++g) {
    const std::string name = fmt::format("ema.{}", g);
    const Tensor* saved = state.find(name);
    const Tensor& into = average_[size_t(g)];
    if (saved == nullptr || saved->shape() != into.shape()) {
      throw Error(ErrorCode::kData, fmt::format("checkpoint entry '{}' is {}, expected {}", name, saved ? describe(*saved) : "missing",
                                                describe(into)));
    }
    into.copy_from(*saved);
  }
  updates_ = saved_count(state, "ema.updates");
}

}  // namespace tessera
