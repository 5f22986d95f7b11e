#include <algorithm>
#include <cmath>
#include <cstddef>

#include "tensor/base/parallel.h"
#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {

constexpr int64_t kPiece = 1 << 14;  // elements: what is known of them stays in a cache from the step to the zeros

RowsView elements(const RowsView& v, int64_t begin, int64_t end) {
  return {static_cast<std::byte*>(v.p) + begin * int64_t(size_of(v.t)), v.t, 1, end - begin, end - begin};
}

}  // namespace

void RefBackend::update(const UpdateArrays<RowsView>& a, const double* settings, double* state, const UpdateParams& p) {
  const auto begin_of = [&](int g) { return g == 0 ? 0 : a.ends[size_t(g - 1)]; };
  double squares = 0;
  for (int g = 0; g < kTrainedGroups; ++g) squares += sum_of_squares(elements(a.grads, begin_of(g), a.ends[size_t(g)]));
  const double scale = state[kScale];
  const double norm = std::sqrt(squares) / scale;
  const bool finite = std::isfinite(norm);
  state[kGradNorm] = norm;
  state[kFirstBad] = -1;
  if (finite) {
    const double step = ++state[kUpdates];
    const double grad_scale = (p.max_norm > 0 ? std::min(1.0, p.max_norm / (norm + 1e-6)) : 1.0) / scale;
    const double keep = p.average_decay * (1.0 - std::exp(-step / p.average_tau));
    const auto take_step = [&](int g, int64_t begin, int64_t end) {
      const auto of = [&](const RowsView& v) { return elements(v, begin, end); };
      const double lr = settings[kRateBias + g], decay = p.weight_decay[size_t(g)];
      if (p.rule == UpdateRule::kSgd) {
        sgd(of(a.values), of(a.grads), of(a.first), grad_scale, {lr, settings[kMomentum], decay, p.nesterov, false});
      } else {
        adam(of(a.values), of(a.grads), of(a.first), of(a.second), grad_scale,
             {lr, p.beta1, p.beta2, p.eps, decay, p.rule == UpdateRule::kAdamW, int64_t(step)});
      }
    };
    parallel_for(a.ends.back(), kPiece, [&](int64_t first, int64_t last) {
      for (int g = 0; g <= kTrainedGroups; ++g) {
        const int64_t begin = std::max(first, begin_of(g)), end = std::min(last, a.ends[size_t(g)]);
        if (begin >= end) continue;
        if (g < kTrainedGroups) take_step(g, begin, end);
        lerp(elements(a.average, begin, end), elements(a.values, begin, end), 1.0 - keep);
        if (g < kTrainedGroups) fill({elements(a.grads, begin, end).p, a.grads.t, {end - begin}, {1}}, 0.0);
      }
    });
  } else {
    ref::for_wide(a.grads.t, [&]<class T>() {
      const T* const grad = ref::row<T>(a.grads, 0);
      state[kFirstBad] = double(std::find_if(grad, grad + a.grads.cols, [](T v) { return !std::isfinite(v); }) - grad);
    });
    fill({a.grads.p, a.grads.t, {a.grads.cols}, {1}}, 0.0);
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
}

}  // namespace tessera
