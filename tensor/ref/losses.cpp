#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "tensor/ops/pointwise_functors.h"
#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {

// Cross-entropy of a logit against a target in [0, 1]: max(x, 0) - x t + log(1 + exp(-|x|)).
double cross_entropy(double logit, double target) { return functors::Softplus::f(logit) - logit * target; }

struct Ciou {
  double value;
  std::array<double, 4> gradient;  // with respect to the corners of the first box
};

// A number with its derivatives in x1, y1, x2, y2 of the predicted box: the gradient of CIoU falls out of writing its formula down.
struct Dual {
  double v;
  std::array<double, 4> d{};
};
Dual combine(double value, const Dual& a, double da, const Dual& b, double db) {
  Dual r{value};
  for (size_t i = 0; i < 4; ++i) r.d[i] = da * a.d[i] + db * b.d[i];
  return r;
}
Dual operator+(const Dual& a, const Dual& b) { return combine(a.v + b.v, a, 1, b, 1); }
Dual operator-(const Dual& a, const Dual& b) { return combine(a.v - b.v, a, 1, b, -1); }
Dual operator*(const Dual& a, const Dual& b) { return combine(a.v * b.v, a, b.v, b, a.v); }
Dual operator/(const Dual& a, const Dual& b) { return combine(a.v / b.v, a, 1 / b.v, b, -a.v / (b.v * b.v)); }
// Where both are equal, each side counts half.
Dual max(const Dual& a, const Dual& b) {
  const double share = a.v > b.v ? 1.0 : a.v < b.v ? 0.0 : 0.5;
  return combine(std::max(a.v, b.v), a, share, b, 1 - share);
}
Dual min(const Dual& a, const Dual& b) {
  const double share = a.v < b.v ? 1.0 : a.v > b.v ? 0.0 : 0.5;
  return combine(std::min(a.v, b.v), a, share, b, 1 - share);
}
Dual positive(const Dual& a) { return a.v >= 0 ? a : Dual{0}; }
Dual atan(const Dual& a) { return combine(std::atan(a.v), a, 1 / (1 + a.v * a.v), a, 0); }
Dual constant(double v) { return {v}; }

// Complete IoU (Zheng et al. 2020) of corner boxes, with the eps placement of spec 7.4: on both heights, the union, the diagonal.
template <class T>
Ciou ciou(const T* predicted, const T* target) {
  constexpr double kEps = 1e-7;
  std::array<Dual, 4> p;
  std::array<Dual, 4> t;
  for (size_t i = 0; i < 4; ++i) {
    p[i] = constant(predicted[i]);
    p[i].d[i] = 1;
    t[i] = constant(target[i]);
  }
  const Dual eps = constant(kEps);
  const Dual w1 = p[2] - p[0];
  const Dual h1 = p[3] - p[1] + eps;
  const Dual w2 = t[2] - t[0];
  const Dual h2 = t[3] - t[1] + eps;
  const Dual inter = positive(min(p[2], t[2]) - max(p[0], t[0])) * positive(min(p[3], t[3]) - max(p[1], t[1]));
  const Dual iou = inter / (w1 * h1 + w2 * h2 - inter + eps);
  const Dual cw = max(p[2], t[2]) - min(p[0], t[0]);
  const Dual ch = max(p[3], t[3]) - min(p[1], t[1]);
  const Dual diagonal = cw * cw + ch * ch + eps;
  const Dual dx = t[0] + t[2] - p[0] - p[2];
  const Dual dy = t[1] + t[3] - p[1] - p[3];
  const Dual distance = (dx * dx + dy * dy) * constant(0.25);
  const Dual angle = atan(w2 / h2) - atan(w1 / h1);
  const Dual v = constant(4 / (std::numbers::pi * std::numbers::pi)) * angle * angle;
  const Dual alpha = constant(v.v / (v.v - iou.v + 1 + kEps));  // no gradient through alpha
  const Dual result = iou - (distance / diagonal + alpha * v);
  return {result.v, result.d};
}

// One side of a box: target t lies between the bins low and low + 1.
struct Side {
  int64_t low;
  double high_share;  // weight of bin low + 1
  double log_sum;     // log of the sum of exp(logits)
};
template <class T>
Side side(const T* logits, double target, int64_t bins) {
  Side s{int64_t(std::floor(target)), target - std::floor(target), 0};
  TESSERA_DCHECK(s.low >= 0 && s.low + 1 < bins, "dfl_loss: got target {}, expected 0 <= target < {}", target, bins - 1);
  const double largest = *std::max_element(logits, logits + bins);
  for (int64_t b = 0; b < bins; ++b) s.log_sum += std::exp(logits[b] - largest);
  s.log_sum = largest + std::log(s.log_sum);
  return s;
}

// Visits the pixels of the box of item i: f(prototype vector at the pixel, whether the pixel belongs to the object, y, x).
template <class T, class F>
void for_each_mask_pixel(const ImageView& prototypes, const int32_t* masks, const MaskLossItems& items, int64_t i, F&& f) {
  const float* box = items.boxes + 4 * i;
  const int64_t plane = items.overlap ? items.image[i] : items.target[i];
  for (int64_t y = 0; y < prototypes.h; ++y) {
    if (double(y) < box[1] || double(y) >= box[3]) continue;
    for (int64_t x = 0; x < prototypes.w; ++x) {
      if (double(x) < box[0] || double(x) >= box[2]) continue;
      const int32_t value = masks[(plane * prototypes.h + y) * prototypes.w + x];
      f(ref::pixel<T>(prototypes, items.image[i], y, x), items.overlap ? value == items.target[i] : value != 0, y, x);
    }
  }
}

template <class T>
double logit_of(const T* coefficients, const T* prototype, int64_t k) {
  double sum = 0;
  for (int64_t j = 0; j < k; ++j) sum += double(coefficients[j]) * prototype[j];
  return sum;
}

}  // namespace

void RefBackend::bce_with_logits(RowsView x, RowsView target, void* result) {
  ref::for_wide(x.t, [&]<class T>() {
    double sum = 0;
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c < x.cols; ++c) sum += cross_entropy(ref::row<T>(x, r)[c], ref::row<T>(target, r)[c]);
    }
    *static_cast<T*>(result) = T(sum);
  });
}

void RefBackend::bce_with_logits_backward(RowsView x, RowsView target, const void* factor, RowsView dx, bool accumulate) {
  ref::for_wide(x.t, [&]<class T>() {
    const double scale = *static_cast<const T*>(factor);
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c < x.cols; ++c) {
        const double difference = functors::Sigmoid::f(double(ref::row<T>(x, r)[c])) - ref::row<T>(target, r)[c];
        ref::put(ref::row<T>(dx, r)[c], difference * scale, accumulate);
      }
    }
  });
}

namespace {
// f(map, row of the map, its label or -1, its score) for the rows of all maps.
template <class F>
void for_each_labelled_row(std::span<const RowsView> x, const int32_t* label, const float* score, F&& f) {
  for (size_t m = 0; m < x.size(); ++m) {
    for (int64_t r = 0; r < x[m].rows; ++r) f(m, r, *label++, double(*score++));
  }
}
}  // namespace

void RefBackend::bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, void* result) {
  ref::for_wide(x[0].t, [&]<class T>() {
    double sum = 0;
    for_each_labelled_row(x, label, score, [&](size_t m, int64_t r, int32_t l, double s) {
      for (int64_t c = 0; c < x[m].cols; ++c) sum += cross_entropy(ref::row<T>(x[m], r)[c], c == l ? s : 0.0);
    });
    *static_cast<T*>(result) = T(sum);
  });
}

void RefBackend::bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score, const void* factor,
                                          std::span<const RowsView> dx) {
  ref::for_wide(x[0].t, [&]<class T>() {
    const double scale = *static_cast<const T*>(factor);
    for_each_labelled_row(x, label, score, [&](size_t m, int64_t r, int32_t l, double s) {
      for (int64_t c = 0; c < x[m].cols; ++c) {
        const double difference = functors::Sigmoid::f(double(ref::row<T>(x[m], r)[c])) - (c == l ? s : 0.0);
        ref::row<T>(dx[m], r)[c] = T(difference * scale);
      }
    });
  });
}

double RefBackend::ciou_sum(RowsView boxes, RowsView target, const void* weight, void* values) {
  return ref::for_wide(boxes.t, [&]<class T>() {
    double sum = 0;
    for (int64_t r = 0; r < boxes.rows; ++r) {
      const double value = ciou(ref::row<T>(boxes, r), ref::row<T>(target, r)).value;
      if (values) static_cast<T*>(values)[r] = T(value);
      sum += static_cast<const T*>(weight)[r] * (1 - value);
    }
    return sum;
  });
}

void RefBackend::ciou_loss(RowsView boxes, RowsView target, const void* weight, void* values, void* result) {
  ref::for_wide(boxes.t, [&]<class T>() { *static_cast<T*>(result) = T(ciou_sum(boxes, target, weight, values)); });
}

void RefBackend::ciou_loss_backward(RowsView boxes, RowsView target, const void* weight, const void* factor, RowsView dboxes) {
  ref::for_wide(boxes.t, [&]<class T>() {
    const double scale = *static_cast<const T*>(factor);
    for (int64_t r = 0; r < boxes.rows; ++r) {
      const Ciou result = ciou(ref::row<T>(boxes, r), ref::row<T>(target, r));
      for (size_t i = 0; i < 4; ++i) {
        ref::row<T>(dboxes, r)[i] = T(-scale * static_cast<const T*>(weight)[r] * result.gradient[i]);
      }
    }
  });
}

void RefBackend::dfl_loss(RowsView logits, RowsView target, const void* weight, void* result) {
  ref::for_wide(logits.t, [&]<class T>() {
    const int64_t bins = logits.cols / 4;
    double sum = 0;
    for (int64_t r = 0; r < logits.rows; ++r) {
      double of_box = 0;
      for (int64_t k = 0; k < 4; ++k) {
        const T* x = ref::row<T>(logits, r) + k * bins;
        const Side s = side(x, ref::row<T>(target, r)[k], bins);
        of_box += (1 - s.high_share) * (s.log_sum - x[s.low]) + s.high_share * (s.log_sum - x[s.low + 1]);
      }
      sum += static_cast<const T*>(weight)[r] * of_box / 4;
    }
    *static_cast<T*>(result) = T(sum);
  });
}

// Cross-entropy's gradient: softmax minus the two-bin target.
void RefBackend::dfl_loss_backward(RowsView logits, RowsView target, const void* weight, const void* scale_of_sum, RowsView dlogits,
                                   bool accumulate) {
  ref::for_wide(logits.t, [&]<class T>() {
    const double scale = *static_cast<const T*>(scale_of_sum);
    const int64_t bins = logits.cols / 4;
    for (int64_t r = 0; r < logits.rows; ++r) {
      const double factor = scale * static_cast<const T*>(weight)[r] / 4;
      for (int64_t k = 0; k < 4; ++k) {
        const T* x = ref::row<T>(logits, r) + k * bins;
        const Side s = side(x, ref::row<T>(target, r)[k], bins);
        for (int64_t b = 0; b < bins; ++b) {
          const double wanted = b == s.low ? 1 - s.high_share : b == s.low + 1 ? s.high_share : 0.0;
          ref::put(ref::row<T>(dlogits, r)[k * bins + b], factor * (std::exp(x[b] - s.log_sum) - wanted), accumulate);
        }
      }
    }
  });
}

void RefBackend::mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                           void* result) {
  ref::for_wide(prototypes.t, [&]<class T>() {
    const double pixels = double(prototypes.h * prototypes.w);
    double sum = 0;
    for (int64_t i = 0; i < items.count; ++i) {
      double of_item = 0;
      for_each_mask_pixel<T>(prototypes, masks, items, i, [&](const T* prototype, bool object, int64_t, int64_t) {
        of_item += cross_entropy(logit_of(ref::row<T>(coefficients, i), prototype, prototypes.c), object ? 1.0 : 0.0);
      });
      sum += of_item / pixels / items.area[i];
    }
    *static_cast<T*>(result) = T(sum);
  });
}

void RefBackend::mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                                    const void* factor, RowsView dcoefficients, ImageView dprototypes) {
  ref::for_wide(prototypes.t, [&]<class T>() {
    const double scale = *static_cast<const T*>(factor);
    const int64_t k = prototypes.c;
    const double pixels = double(prototypes.h * prototypes.w);
    std::vector<double> prototype_sums(size_t(prototypes.n * prototypes.h * prototypes.w * k), 0.0);
    std::vector<double> coefficient_sums(static_cast<size_t>(k));
    for (int64_t i = 0; i < items.count; ++i) {
      const T* coefficient = ref::row<T>(coefficients, i);
      std::fill(coefficient_sums.begin(), coefficient_sums.end(), 0.0);
      for_each_mask_pixel<T>(prototypes, masks, items, i, [&](const T* prototype, bool object, int64_t y, int64_t x) {
        const double difference = functors::Sigmoid::f(logit_of(coefficient, prototype, k)) - (object ? 1.0 : 0.0);
        const double gradient = scale * difference / pixels / items.area[i];
        double* sums = prototype_sums.data() + ((items.image[i] * prototypes.h + y) * prototypes.w + x) * k;
        for (int64_t j = 0; j < k; ++j) {
          coefficient_sums[size_t(j)] += gradient * prototype[j];
          sums[j] += gradient * coefficient[j];
        }
      });
      for (int64_t j = 0; j < k; ++j) ref::row<T>(dcoefficients, i)[j] = T(coefficient_sums[size_t(j)]);
    }
    const RowsView out = dprototypes.rows();
    for (int64_t r = 0; r < out.rows; ++r) {
      for (int64_t j = 0; j < k; ++j) ref::row<T>(out, r)[j] = T(prototype_sums[size_t(r * k + j)]);
    }
  });
}

}  // namespace tessera
