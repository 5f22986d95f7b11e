#include "nn/rounded_weights.h"

namespace tessera {

RoundedWeights::RoundedWeights(const ParameterArena& arena, DType type) {
  if (wide_of(type) == type) return;
  weights_ = arena.weights();
  const Tensor rounded = arena.values(ParamGroup::kWeight).to(type);
  const auto& entries = arena.entries(ParamGroup::kWeight);
  for (size_t i = 0; i < weights_.size(); ++i) {
    weights_[i].set_rounded(rounded.narrow(0, entries[i].offset, entries[i].count).view(entries[i].shape));
  }
}

RoundedWeights::~RoundedWeights() {
  for (Variable& w : weights_) w.set_rounded({});
}

}  // namespace tessera
