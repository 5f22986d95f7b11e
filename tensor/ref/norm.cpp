#include <cmath>
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

// Those of one rank, joined.
void RefBackend::batch_norm_stats(ImageView x, double eps, const RunningStatsView& running, void* mean, void* rstd) {
  const int64_t width = 1 + 2 * x.c;
  std::vector<double> part(static_cast<size_t>(width));
  batch_norm_part(x, part.data());
  batch_norm_join({part.data(), DType::kF64, 1, width, width}, eps, running, wide_of(x.t), mean, rstd);
}

void RefBackend::conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps,
                                   const RunningStatsView& running, void* mean, void* rstd) {
  conv2d(x, w, y, p, {});
  batch_norm_stats(y, eps, running, mean, rstd);
}

void RefBackend::batch_norm_rstd(RowsView var, double eps, void* rstd) {
  ref::for_wide(var.t, [&]<class T>() {
    for (int64_t c = 0; c < var.cols; ++c) static_cast<T*>(rstd)[c] = T(1 / std::sqrt(double(ref::row<T>(var, 0)[c]) + eps));
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

void RefBackend::batch_norm_part(ImageView image, double* part) {
  const RowsView x = image.rows();
  ref::for_floating(x.t, [&]<class T>() {
    double* const sums = part + 1;
    double* const squares_about_mean = sums + x.cols;
    part[0] = double(x.rows);
    for (int64_t c = 0; c < x.cols; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < x.rows; ++r) sum += ref::load(ref::row<T>(x, r)[c]);
      const double center = sum / double(x.rows);
      double squares = 0;
      for (int64_t r = 0; r < x.rows; ++r) {
        const double deviation = ref::load(ref::row<T>(x, r)[c]) - center;
        squares += deviation * deviation;
      }
      sums[c] = sum;
      squares_about_mean[c] = squares;
    }
  });
}

void RefBackend::batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, DType type, void* mean, void* rstd) {
  ref::for_wide(type, [&]<class T>() {
    const int64_t channels = (parts.cols - 1) / 2;
    double rows = 0;
    for (int64_t r = 0; r < parts.rows; ++r) rows += ref::row<double>(parts, r)[0];
    for (int64_t c = 0; c < channels; ++c) {
      double center = 0, var = 0;
      for (int64_t r = 0; r < parts.rows; ++r) {
        center += ref::row<double>(parts, r)[1 + c];
      }
      center /= rows;
      for (int64_t r = 0; r < parts.rows; ++r) {
        const double* const part = ref::row<double>(parts, r);
        const double off = part[1 + c] / part[0] - center;
        var += part[1 + channels + c] + part[0] * off * off;
      }
      var /= rows;
      static_cast<T*>(mean)[c] = T(center);
      static_cast<T*>(rstd)[c] = T(1 / std::sqrt(var + eps));
      const auto move = [&](void* average, double value) {
        if (average == nullptr) return;
        T& a = static_cast<T*>(average)[c];
        a = T(double(a) + running.momentum * (value - double(a)));
      };
      move(running.mean, center);
      move(running.var, rows > 1 ? var * (rows / (rows - 1)) : var);
    }
  });
}

void RefBackend::batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd, void* slope,
                                       void* offset) {
  ref::for_wide(sums.t, [&]<class T>() {
    const int64_t channels = (parts.cols - 1) / 2;
    double rows = 0;
    for (int64_t r = 0; r < parts.rows; ++r) rows += ref::row<double>(parts, r)[0];
    const auto too_much = [&](int64_t i) {  // mean over the own rows - mean over all
      double all = 0;
      for (int64_t r = 0; r < sums.rows; ++r) all += double(ref::row<T>(sums, r)[i]);
      return double(ref::row<T>(sums, own)[i]) / ref::row<double>(parts, own)[0] - all / rows;
    };
    for (int64_t c = 0; c < channels; ++c) {
      const double scale = double(static_cast<const T*>(gamma)[c]) * double(static_cast<const T*>(rstd)[c]);
      static_cast<T*>(slope)[c] = T(scale * too_much(c));
      static_cast<T*>(offset)[c] = T(scale * too_much(channels + c));
    }
  });
}

}  // namespace tessera
