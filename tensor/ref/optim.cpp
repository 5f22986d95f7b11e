#include <cmath>

#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

void RefBackend::sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) {
  ref::for_wide(p.t, [&]<class T>() {
    for (int64_t r = 0; r < p.rows; ++r) {
      for (int64_t c = 0; c < p.cols; ++c) {
        T& weight = ref::row<T>(p, r)[c];
        T& velocity = ref::row<T>(v, r)[c];
        const double gradient = ref::row<T>(g, r)[c] * grad_scale + s.weight_decay * weight;
        const double moved = s.first_step ? gradient : s.momentum * velocity + gradient;
        velocity = T(moved);
        weight = T(weight - s.lr * (s.nesterov ? gradient + s.momentum * moved : moved));
      }
    }
  });
}

void RefBackend::adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) {
  const double correction1 = 1.0 - std::pow(a.beta1, double(a.step));
  const double correction2 = 1.0 - std::pow(a.beta2, double(a.step));
  ref::for_wide(p.t, [&]<class T>() {
    for (int64_t r = 0; r < p.rows; ++r) {
      for (int64_t c = 0; c < p.cols; ++c) {
        T& weight = ref::row<T>(p, r)[c];
        T& first = ref::row<T>(m, r)[c];
        T& second = ref::row<T>(v, r)[c];
        double gradient = ref::row<T>(g, r)[c] * grad_scale;
        double value = weight;
        if (a.decoupled) {
          value *= 1.0 - a.lr * a.weight_decay;
        } else {
          gradient += a.weight_decay * value;
        }
        const double mean = a.beta1 * first + (1.0 - a.beta1) * gradient;
        const double square = a.beta2 * second + (1.0 - a.beta2) * gradient * gradient;
        first = T(mean);
        second = T(square);
        weight = T(value - a.lr / correction1 * mean / (std::sqrt(square) / std::sqrt(correction2) + a.eps));
      }
    }
  });
}

void RefBackend::lerp(RowsView y, RowsView x, double weight) {
  ref::for_wide(y.t, [&]<class T>() {
    for (int64_t r = 0; r < y.rows; ++r) {
      for (int64_t c = 0; c < y.cols; ++c) {
        T& out = ref::row<T>(y, r)[c];
        out = T((1.0 - weight) * out + weight * ref::row<T>(x, r)[c]);
      }
    }
  });
}

double RefBackend::sum_of_squares(RowsView x) {
  return ref::for_floating(x.t, [&]<class T>() {
    double sum = 0;
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c < x.cols; ++c) sum += ref::load(ref::row<T>(x, r)[c]) * ref::load(ref::row<T>(x, r)[c]);
    }
    return sum;
  });
}

bool RefBackend::all_finite(RowsView x) {
  return ref::for_floating(x.t, [&]<class T>() {
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c < x.cols; ++c) {
        if (!std::isfinite(ref::load(ref::row<T>(x, r)[c]))) return false;
      }
    }
    return true;
  });
}

}  // namespace tessera
