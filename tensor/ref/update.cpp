#include <algorithm>
#include <cmath>
#include <cstddef>

#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

void RefBackend::update(const UpdateArrays<RowsView>& a, const double* settings, double* state, const UpdateParams& p) {
  const auto group = [&](const RowsView& v, int g) {
    const int64_t begin = g == 0 ? 0 : a.ends[size_t(g - 1)], n = a.ends[size_t(g)] - begin;
    return RowsView{static_cast<std::byte*>(v.p) + begin * int64_t(size_of(v.t)), v.t, 1, n, n};
  };
  double squares = 0;
  for (int g = 0; g < kTrainedGroups; ++g) squares += sum_of_squares(group(a.grads, g));
  const double scale = state[kScale];
  const double norm = std::sqrt(squares) / scale;
  const bool finite = std::isfinite(norm);
  state[kGradNorm] = norm;
  state[kFirstBad] = -1;
  if (finite) {
    const double step = ++state[kUpdates];
    const double grad_scale = (p.max_norm > 0 ? std::min(1.0, p.max_norm / (norm + 1e-6)) : 1.0) / scale;
    for (int g = 0; g < kTrainedGroups; ++g) {
      const double lr = settings[kRateBias + g], decay = p.weight_decay[size_t(g)];
      if (p.rule == UpdateRule::kSgd) {
        sgd(group(a.values, g), group(a.grads, g), group(a.first, g), grad_scale,
            {lr, settings[kMomentum], decay, p.nesterov, false});
      } else {
        adam(group(a.values, g), group(a.grads, g), group(a.first, g), group(a.second, g), grad_scale,
             {lr, p.beta1, p.beta2, p.eps, decay, p.rule == UpdateRule::kAdamW, int64_t(step)});
      }
    }
    const double keep = p.average_decay * (1.0 - std::exp(-step / p.average_tau));
    for (int g = 0; g <= kTrainedGroups; ++g) lerp(group(a.average, g), group(a.values, g), 1.0 - keep);
  } else {
    ref::for_wide(a.grads.t, [&]<class T>() {
      const T* const grad = ref::row<T>(a.grads, 0);
      state[kFirstBad] = double(std::find_if(grad, grad + a.grads.cols, [](T v) { return !std::isfinite(v); }) - grad);
    });
  }
  if (p.growth_interval > 0) {
    const float grown = float(scale * p.growth);
    if (!finite) {
      state[kScale] = float(scale * p.backoff);
      state[kGoodUpdates] = 0;
    } else if (++state[kGoodUpdates] == double(p.growth_interval)) {
      if (std::isfinite(grown)) state[kScale] = grown;
      state[kGoodUpdates] = 0;
    }
  }
  fill({a.grads.p, a.grads.t, {a.grads.cols}, {1}}, 0.0);
}

}  // namespace tessera
