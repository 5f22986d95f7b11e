// Moves the parameters of a model into one flat buffer, in groups of equal treatment, with gradients of the same layout: an optimizer
// step, a gradient norm or an EMA update is then one call for each group, or one for all.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "nn/module.h"
#include "tensor/ops/update.h"

namespace tessera {

// Groups in the original's order (spec 8.3): parameters named "bias", other weights (decayed), normalisation weights; then the
// floating-point buffers (running statistics), which have no gradient but belong to the EMA.
enum class ParamGroup { kBias = 0, kWeight = 1, kNorm = 2, kBuffers = 3 };
inline constexpr int kAllGroups = kTrainedGroups + 1;

class ParameterArena {
 public:
  // Moves every float parameter that requires a gradient, and every float buffer, into the arena, on the device of the module.
  // Parameters that require no gradient stay where they are. The module must outlive the arena or not be trained afterwards.
  explicit ParameterArena(Module& module);

  struct Entry {
    std::string name;
    int64_t offset, count;
    Shape shape;
  };

  const Tensor& values(ParamGroup g) const { return values_[size_t(g)]; }
  const Tensor& grads(ParamGroup g) const { return grads_[size_t(g)]; }  // undefined for buffers
  // All groups one after the other; each begins and ends at a multiple of 16 elements.
  const Tensor& all_values() const { return all_values_; }
  const Tensor& all_grads() const { return all_grads_; }                         // of the trained groups
  const std::array<int64_t, kAllGroups>& ends() const { return ends_; }          // of the groups, in elements
  Tensor part(const Tensor& all, ParamGroup group) const;                        // the slice of a group in a tensor of this layout
  const Entry* entry_at(int64_t place) const;                                    // of this element of all_grads(); null: of a gap
  const std::vector<Entry>& entries(ParamGroup g) const { return entries_[size_t(g)]; }
  const std::vector<Variable>& weights() const { return weights_; }  // of entries(ParamGroup::kWeight)

  void zero_grad() const;
  double grad_norm() const;  // L2 over all groups

 private:
  Tensor all_values_, all_grads_;
  std::array<int64_t, kAllGroups> ends_{};
  std::array<Tensor, kAllGroups> values_, grads_;  // slices of these
  std::array<std::vector<Entry>, kAllGroups> entries_;
  std::vector<Variable> weights_;
};

}  // namespace tessera
