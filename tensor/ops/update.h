// A whole update of a training in one call, which a device finishes by itself: norm and finite check of the gradients, clip, step
// of the optimizer, moving average, zeroed gradients, scale of the loss. No number of it goes through the host.
#pragma once

#include <array>

#include "tensor/tensor.h"

namespace tessera {

enum class UpdateRule { kSgd, kAdam, kAdamW };

inline constexpr int kTrainedGroups = 3;  // of parameters: biases, weights, norms; a fourth group is only averaged

// The parameters of a training one after the other, group by group; each group begins and ends at a multiple of 16 elements. Dense.
template <class Array>
struct UpdateArrays {
  Array values;         // of all four groups
  Array grads;          // of the trained ones, times the scale
  Array first, second;  // likewise: velocity of SGD, or the moments of Adam; zeros before the first update
  Array average;        // like values
  std::array<int64_t, kTrainedGroups + 1> ends{};  // of the groups, in elements
};

// The same for every update of a run.
struct UpdateParams {
  UpdateRule rule = UpdateRule::kSgd;
  bool nesterov = true;                           // SGD
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;  // Adam
  std::array<double, kTrainedGroups> weight_decay{};
  double max_norm = 0;                                // of all gradients together; 0: they are not clipped
  double average_decay = 0.9999, average_tau = 2000;  // the u-th update weighs the new values 1 - decay (1 - exp(-u / tau))
  // The scale of the loss, as in torch.amp.GradScaler: times growth after so many finite updates in a row, times backoff after one
  // that was not. 0 updates: the scale stays.
  int64_t growth_interval = 0;
  double growth = 2, backoff = 0.5;
};

// What the host sets before an update: f64.
enum UpdateSetting : int { kRateBias, kRateWeight, kRateNorm, kMomentum /* SGD */, kUpdateSettings };

// What an update leaves: f64, whole numbers or values of f32 but for the norm.
enum UpdateSlot : int {
  kUpdates,      // made so far; those left out do not count
  kScale,        // of the loss; without scaling 1
  kGoodUpdates,  // finite ones in a row, since the scale was last changed
  kGradNorm,     // of this update's gradients, without the scale and before they are clipped; not finite: the update was left out
  kFirstBad,     // place in grads of the first NaN or infinity; -1: there is none
  kUpdateSlots
};

class UpdateOps {
 public:
  virtual ~UpdateOps() = default;
  // norm = |grads| / scale, in double. All finite: values take a step of `rule` along grads / scale * min(1, max_norm / (norm +
  // 1e-6)), average follows, and the number of updates grows; else they all stay as they are. Then the scale is adapted and grads
  // are zero.
  virtual void update(const UpdateArrays<RowsView>& arrays, const double* settings, double* state, const UpdateParams& p) = 0;
};

namespace ops {
// settings (kUpdateSettings), state (kUpdateSlots): f64, on the device of the arrays. `second` undefined with SGD.
void update(const UpdateArrays<Tensor>& arrays, const Tensor& settings, const Tensor& state, const UpdateParams& p);
}  // namespace ops

}  // namespace tessera
