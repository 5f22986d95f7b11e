#include "nn/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tessera {

namespace {
// Linear interpolation as numpy.interp does it on [0, n]: clamped, slope form.
double lerp_at(double x, double n, double from, double to) { return x >= n ? to : (to - from) / n * x + from; }
}  // namespace

Schedule::Schedule(const ScheduleConfig& config) : c_(config) {
  warmup_ = c_.warmup_epochs > 0 ? std::max<int64_t>(std::llrint(c_.warmup_epochs * double(c_.batches_per_epoch)), 100) : -1;
}

double Schedule::factor(int64_t epoch) const {
  const double t = double(epoch) / double(c_.epochs);
  if (c_.cosine) return (1.0 - std::cos(std::numbers::pi * t)) / 2.0 * (c_.lrf - 1.0) + 1.0;
  return std::max(1.0 - t, 0.0) * (1.0 - c_.lrf) + c_.lrf;
}

ScheduleValues Schedule::at(int64_t epoch, int64_t index) const {
  const double target = c_.lr0 * factor(epoch);
  const double ratio = double(c_.nbs) / double(c_.batch);
  const int64_t step = index + c_.batches_per_epoch * epoch;
  ScheduleValues v;
  if (step > warmup_) {
    v.lr.fill(target);
    v.momentum = c_.momentum;
    // The value of the last warm-up batch stays (the original does not compute it again); without warm-up it is the plain rule.
    v.accumulate = std::max<int64_t>(1, std::llrint(ratio));
    return v;
  }
  const double n = double(warmup_), x = double(step);
  v.accumulate = std::max<int64_t>(1, int64_t(std::nearbyint(lerp_at(x, n, 1.0, ratio))));
  v.lr[size_t(ParamGroup::kBias)] = lerp_at(x, n, c_.warmup_bias_lr, target);
  v.lr[size_t(ParamGroup::kWeight)] = lerp_at(x, n, 0.0, target);
  v.lr[size_t(ParamGroup::kNorm)] = lerp_at(x, n, 0.0, target);
  v.momentum = lerp_at(x, n, c_.warmup_momentum, c_.momentum);
  return v;
}

}  // namespace tessera
