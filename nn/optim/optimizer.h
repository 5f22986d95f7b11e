// Update rules over a parameter arena: SGD with Nesterov momentum, Adam, AdamW. Kernels and formulas in tensor/ops/optim.h. A
// training does not call step() but WeightUpdate (nn/optim/weight_update.h), which has the optimizer describe its rule.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "nn/io/state_dict.h"
#include "nn/parameter_arena.h"
#include "tensor/ops/update.h"

namespace tessera {

struct StepInfo {
  std::array<double, kTrainedGroups> lr{};            // bias, weight, norm (spec 8.3)
  std::array<double, kTrainedGroups> weight_decay{};  // likewise
  double momentum = 0.937;                            // SGD only
  double grad_scale = 1.0;                            // every gradient is multiplied by it (clipping, loss scaling)
};

class Optimizer {
 public:
  explicit Optimizer(const ParameterArena& arena) : arena_(arena) {}
  virtual ~Optimizer() = default;
  virtual std::string name() const = 0;
  virtual void step(const StepInfo& info) = 0;
  // State as named tensors ("optimizer.<group>.<moment>", "optimizer.steps"); restore() checks names and sizes.
  virtual void save(StateDict& state) const = 0;
  virtual void restore(const StateDict& state) = 0;

  // For WeightUpdate: what the rule is, where its state lies, and how many steps it has made.
  virtual void describe_update(UpdateParams& params, UpdateArrays<Tensor>& arrays) const = 0;
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 protected:
  const ParameterArena& arena_;
  int64_t steps_ = 0;
};

class Sgd final : public Optimizer {
 public:
  Sgd(const ParameterArena& arena, bool nesterov);
  std::string name() const override { return "SGD"; }
  void step(const StepInfo& info) override;
  void save(StateDict& state) const override;
  void restore(const StateDict& state) override;
  void describe_update(UpdateParams& params, UpdateArrays<Tensor>& arrays) const override;

 private:
  bool nesterov_;
  Tensor all_velocity_;
  std::array<Tensor, kTrainedGroups> velocity_;
};

class Adam final : public Optimizer {
 public:
  // decoupled: AdamW.
  Adam(const ParameterArena& arena, bool decoupled, double beta1, double beta2 = 0.999, double eps = 1e-8);
  std::string name() const override { return decoupled_ ? "AdamW" : "Adam"; }
  void step(const StepInfo& info) override;
  void save(StateDict& state) const override;
  void restore(const StateDict& state) override;
  void describe_update(UpdateParams& params, UpdateArrays<Tensor>& arrays) const override;

 private:
  bool decoupled_;
  double beta1_, beta2_, eps_;
  Tensor all_first_, all_second_;
  std::array<Tensor, kTrainedGroups> first_, second_;
};

}  // namespace tessera
