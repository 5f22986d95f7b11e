#include <vector>

#include "tensor/ops/pointwise_functors.h"
#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {
// One channel of the normalisation, in double.
struct Channel {
  double mean, rstd, gamma, beta;
  double normalized(double x) const { return (x - mean) * rstd; }
  double z(double x) const { return normalized(x) * gamma + beta; }
};

template <class T>
Channel channel(const BatchNormView& bn, int64_t c) {
  auto at = [&](const void* p) { return double(static_cast<const ref::Wide<T>*>(p)[c]); };
  return {at(bn.mean), at(bn.rstd), at(bn.gamma), at(bn.beta)};
}
}  // namespace

void RefBackend::batch_norm_stats(RowsView x, void* mean, void* var) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t c = 0; c < x.cols; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < x.rows; ++r) sum += ref::load(ref::row<T>(x, r)[c]);
      const double center = sum / double(x.rows);
      double squares = 0;
      for (int64_t r = 0; r < x.rows; ++r) {
        const double deviation = ref::load(ref::row<T>(x, r)[c]) - center;
        squares += deviation * deviation;
      }
      static_cast<ref::Wide<T>*>(mean)[c] = ref::Wide<T>(center);
      static_cast<ref::Wide<T>*>(var)[c] = ref::Wide<T>(squares / double(x.rows));
    }
  });
}

void RefBackend::batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t c = 0; c < x.cols; ++c) {
      const Channel ch = channel<T>(bn, c);
      for (int64_t r = 0; r < x.rows; ++r) {
        double value = ch.z(ref::load(ref::row<T>(x, r)[c]));
        if (act == Activation::kSilu) value = functors::Silu::f(value);
        if (residual.p) value += ref::load(ref::row<T>(residual, r)[c]);
        ref::row<T>(y, r)[c] = ref::rounded<T>(value);
      }
    }
  });
}

// With dz = dy * act'(z) and xhat = (x - mean) * rstd: dbeta = sum dz, dgamma = sum dz * xhat,
// dx = gamma * rstd * (dz - (dbeta + xhat * dgamma) / rows).
void RefBackend::batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma,
                                     void* dbeta, bool accumulate) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t c = 0; c < x.cols; ++c) {
      const Channel ch = channel<T>(bn, c);
      auto dz = [&](int64_t r) {
        const double gradient = ref::load(ref::row<T>(dy, r)[c]);
        return act == Activation::kSilu ? gradient * functors::Silu::df(ch.z(ref::load(ref::row<T>(x, r)[c]))) : gradient;
      };
      double sum = 0;
      double sum_normalized = 0;
      for (int64_t r = 0; r < x.rows; ++r) {
        sum += dz(r);
        sum_normalized += dz(r) * ch.normalized(ref::load(ref::row<T>(x, r)[c]));
      }
      for (int64_t r = 0; r < x.rows; ++r) {
        const double through_statistics = (sum + ch.normalized(ref::load(ref::row<T>(x, r)[c])) * sum_normalized) / double(x.rows);
        ref::row<T>(dx, r)[c] = ref::rounded<T>(ch.gamma * ch.rstd * (dz(r) - through_statistics));
      }
      ref::put(static_cast<ref::Wide<T>*>(dgamma)[c], sum_normalized, accumulate);
      ref::put(static_cast<ref::Wide<T>*>(dbeta)[c], sum, accumulate);
    }
  });
}

}  // namespace tessera
