// Binary cross-entropy and distribution focal loss.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/losses.cpp"
#include <cmath>

#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/cross_entropy-inl.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

double BceWithLogits(RowsView x, RowsView target) {
  return sum_rows([](V v, V t) HWY_ATTR { return cross_entropy(v, t); }, x, target);
}

void BceWithLogitsBackward(RowsView x, RowsView target, double scale, RowsView dx, bool accumulate) {
  const V k = splat(float(scale));
  if (accumulate) {
    map_rows(
        dx, [=](V v, V t, V old) HWY_ATTR { return hn::MulAdd(hn::Sub(sigmoid(v), t), k, old); }, x, target, dx);
  } else {
    map_rows(
        dx, [=](V v, V t) HWY_ATTR { return hn::Mul(hn::Sub(sigmoid(v), t), k); }, x, target);
  }
}

// As if all targets were 0, and then what the few labels change.
double BceWithLabels(RowsView x, const int32_t* label, const float* score) {
  double total = sum_rows([](V v) HWY_ATTR { return cross_entropy(v, hn::Zero(F32())); }, x);
  for (int64_t r = 0; r < x.rows; ++r) {
    if (label[r] >= 0) total -= double(score[r]) * double(at(x, r)[label[r]]);
  }
  return total;
}

void BceWithLabelsBackward(RowsView x, const int32_t* label, const float* score, double scale, RowsView dx) {
  const V k = splat(float(scale));
  map_rows(
      dx, [=](V v) HWY_ATTR { return hn::Mul(sigmoid(v), k); }, x);
  for (int64_t r = 0; r < x.rows; ++r) {
    if (label[r] >= 0) at(dx, r)[label[r]] -= float(scale * double(score[r]));
  }
}

constexpr int64_t kDflRows = 128;

// One side of a box: the target lies between the bins low and low + 1, whose weights are 1 - share and share.
struct Side {
  explicit Side(float target) : low(size_t(target)), share(target - float(low)) {}
  size_t low;
  float share;
};

double DflLoss(RowsView logits, RowsView target, const float* weight) {
  const auto bins = size_t(logits.cols / 4);
  std::vector<double> partial(size_t((logits.rows + kDflRows - 1) / kDflRows));
  parallel_for(logits.rows, kDflRows, [&](int64_t begin, int64_t end) HWY_ATTR {
    double total = 0;
    for (int64_t r = begin; r < end; ++r) {
      double of_box = 0;
      for (size_t k = 0; k < 4; ++k) {
        const float* x = at(logits, r) + k * bins;
        const Side side(at(target, r)[k]);
        const RowSum s = exp_row(x, nullptr, bins);
        const double expected = (1.0 - double(side.share)) * double(x[side.low]) + double(side.share) * double(x[side.low + 1]);
        of_box += double(s.largest) - expected + std::log(double(s.sum));
      }
      total += double(weight[r]) * of_box / 4;
    }
    partial[size_t(begin / kDflRows)] = total;
  });
  double total = 0;
  for (double p : partial) total += p;
  return total;
}

// Softmax less the two-bin target.
void DflLossBackward(RowsView logits, RowsView target, const float* weight, double scale, RowsView dlogits, bool accumulate) {
  const auto bins = size_t(logits.cols / 4);
  parallel_for(logits.rows, kDflRows, [&](int64_t begin, int64_t end) HWY_ATTR {
    for (int64_t r = begin; r < end; ++r) {
      const auto factor = float(scale * double(weight[r]) / 4);
      for (size_t k = 0; k < 4; ++k) {
        const float* x = at(logits, r) + k * bins;
        float* dx = at(dlogits, r) + k * bins;
        const Side side(at(target, r)[k]);
        const RowSum s = exp_row(x, nullptr, bins);
        const V shift = splat(s.largest), share = splat(factor / s.sum);
        if (accumulate) {
          map_run(
              bins, dx, false, [=](V v, V old) HWY_ATTR { return hn::MulAdd(exp(hn::Sub(v, shift)), share, old); }, x, dx);
        } else {
          map_run(
              bins, dx, false, [=](V v) HWY_ATTR { return hn::Mul(exp(hn::Sub(v, shift)), share); }, x);
        }
        dx[side.low] -= factor * (1.0f - side.share);
        dx[side.low + 1] -= factor * side.share;
      }
    }
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(BceWithLogits);
HWY_EXPORT(BceWithLogitsBackward);
HWY_EXPORT(BceWithLabels);
HWY_EXPORT(BceWithLabelsBackward);
HWY_EXPORT(DflLoss);
HWY_EXPORT(DflLossBackward);

double bce_with_logits(RowsView x, RowsView target) { return HWY_DYNAMIC_DISPATCH(BceWithLogits)(x, target); }
void bce_with_logits_backward(RowsView x, RowsView target, double scale, RowsView dx, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(BceWithLogitsBackward)(x, target, scale, dx, accumulate);
}
double bce_with_labels(RowsView x, const int32_t* label, const float* score) {
  return HWY_DYNAMIC_DISPATCH(BceWithLabels)(x, label, score);
}
void bce_with_labels_backward(RowsView x, const int32_t* label, const float* score, double scale, RowsView dx) {
  HWY_DYNAMIC_DISPATCH(BceWithLabelsBackward)(x, label, score, scale, dx);
}
double dfl_loss(RowsView logits, RowsView target, const float* weight) {
  return HWY_DYNAMIC_DISPATCH(DflLoss)(logits, target, weight);
}
void dfl_loss_backward(RowsView logits, RowsView target, const float* weight, double scale, RowsView dlogits, bool accumulate) {
  HWY_DYNAMIC_DISPATCH(DflLossBackward)(logits, target, weight, scale, dlogits, accumulate);
}

}  // namespace tessera::cpu
#endif
