#include "nn/optim/optimizer.h"

#include "tensor/ops/optim.h"

namespace tessera {

namespace {

std::string key(int group, const char* what) { return fmt::format("optimizer.{}.{}", group, what); }

void restore_tensor(const StateDict& state, const std::string& name, const Tensor& into) {
  const Tensor* saved = state.find(name);
  if (saved == nullptr || saved->shape() != into.shape()) {
    throw Error(ErrorCode::kData, fmt::format("optimizer state '{}' is {}, expected {}", name,
                                              saved ? describe(*saved) : "missing", describe(into)),
                {}, "the checkpoint belongs to another model or optimizer");
  }
  into.copy_from(*saved);
}

int64_t restore_steps(const StateDict& state) {
  constexpr const char* kName = "optimizer.steps";
  if (!state.contains(kName))
    throw Error(ErrorCode::kData, "the checkpoint has no optimizer state", {}, "it can start a training, not resume one");
  return saved_count(state, kName);
}

Tensor zeros_like(const Tensor& t) { return Tensor::zeros(t.shape(), t.dtype(), t.device()); }

std::array<Tensor, kTrainedGroups> groups_of(const ParameterArena& arena, const Tensor& all) {
  std::array<Tensor, kTrainedGroups> t;
  for (int g = 0; g < kTrainedGroups; ++g) t[size_t(g)] = arena.part(all, ParamGroup(g));
  return t;
}

}  // namespace

Sgd::Sgd(const ParameterArena& arena, bool nesterov)
    : Optimizer(arena), nesterov_(nesterov), all_velocity_(zeros_like(arena.all_grads())), velocity_(groups_of(arena, all_velocity_)) {}

void Sgd::describe_update(UpdateParams& p, UpdateArrays<Tensor>& arrays) const {
  p.rule = UpdateRule::kSgd;
  p.nesterov = nesterov_;
  arrays.first = all_velocity_;
}

void Sgd::step(const StepInfo& info) {
  for (int g = 0; g < kTrainedGroups; ++g) {
    const size_t i = size_t(g);
    ops::sgd(arena_.values(ParamGroup(g)), arena_.grads(ParamGroup(g)), velocity_[i], info.grad_scale,
             {info.lr[i], info.momentum, info.weight_decay[i], nesterov_, steps_ == 0});
  }
  ++steps_;
}

void Sgd::save(StateDict& state) const {
  for (int g = 0; g < kTrainedGroups; ++g) state.set(key(g, "velocity"), velocity_[size_t(g)]);
  state.set("optimizer.steps", Tensor::scalar(double(steps_), DType::kI64));
}

void Sgd::restore(const StateDict& state) {
  for (int g = 0; g < kTrainedGroups; ++g) restore_tensor(state, key(g, "velocity"), velocity_[size_t(g)]);
  steps_ = restore_steps(state);
}

Adam::Adam(const ParameterArena& arena, bool decoupled, double beta1, double beta2, double eps)
    : Optimizer(arena),
      decoupled_(decoupled),
      beta1_(beta1),
      beta2_(beta2),
      eps_(eps),
      all_first_(zeros_like(arena.all_grads())),
      all_second_(zeros_like(arena.all_grads())),
      first_(groups_of(arena, all_first_)),
      second_(groups_of(arena, all_second_)) {}

void Adam::describe_update(UpdateParams& p, UpdateArrays<Tensor>& arrays) const {
  p.rule = decoupled_ ? UpdateRule::kAdamW : UpdateRule::kAdam;
  p.beta1 = beta1_;
  p.beta2 = beta2_;
  p.eps = eps_;
  arrays.first = all_first_;
  arrays.second = all_second_;
}

void Adam::step(const StepInfo& info) {
  ++steps_;
  for (int g = 0; g < kTrainedGroups; ++g) {
    const size_t i = size_t(g);
    ops::adam(arena_.values(ParamGroup(g)), arena_.grads(ParamGroup(g)), first_[i], second_[i], info.grad_scale,
              {info.lr[i], beta1_, beta2_, eps_, info.weight_decay[i], decoupled_, steps_});
  }
}

void Adam::save(StateDict& state) const {
  for (int g = 0; g < kTrainedGroups; ++g) {
    state.set(key(g, "first_moment"), first_[size_t(g)]);
    state.set(key(g, "second_moment"), second_[size_t(g)]);
  }
  state.set("optimizer.steps", Tensor::scalar(double(steps_), DType::kI64));
}

void Adam::restore(const StateDict& state) {
  for (int g = 0; g < kTrainedGroups; ++g) {
    restore_tensor(state, key(g, "first_moment"), first_[size_t(g)]);
    restore_tensor(state, key(g, "second_moment"), second_[size_t(g)]);
  }
  steps_ = restore_steps(state);
}

}  // namespace tessera
