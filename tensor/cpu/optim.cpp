// Optimizer updates of whole arenas: every buffer is read and written once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/optim.cpp"
#include <atomic>
#include <cmath>

#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

// Calls update(part, pointers to the same element of each view) for all vectors.
template <class F, class... Views>
void update_rows(const F& update, const RowsView& first_view, const Views&... views) {
  const RowCut cut(first_view, views...);
  parallel_chunks(cut.chunks(), [&](int64_t chunk) HWY_ATTR {
    cut.for_each_run(chunk, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
      const auto run = [&](auto*... p)
                           HWY_ATTR { for_each_vector(n, [&](size_t i, auto part) HWY_ATTR { update(part, p + i...); }); };
      run(at(first_view, row, column), at(views, row, column)...);
    });
  });
}

template <bool kFirstStep, bool kNesterov>
void sgd_as(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) {
  const V scale = splat(float(grad_scale)), decay = splat(float(s.weight_decay));
  const V momentum = splat(float(s.momentum)), rate = splat(float(s.lr));
  update_rows(
      [=](auto part, float* weight, float* grad, float* velocity) HWY_ATTR {
        const V w = part.get(weight);
        const V gradient = hn::MulAdd(w, decay, hn::Mul(part.get(grad), scale));
        const V moved = kFirstStep ? gradient : hn::MulAdd(part.get(velocity), momentum, gradient);
        part.put(moved, velocity);
        part.put(hn::NegMulAdd(rate, kNesterov ? hn::MulAdd(moved, momentum, gradient) : moved, w), weight);
      },
      p, g, v);
}

void Sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) {
  if (s.first_step) {
    s.nesterov ? sgd_as<true, true>(p, g, v, grad_scale, s) : sgd_as<true, false>(p, g, v, grad_scale, s);
  } else {
    s.nesterov ? sgd_as<false, true>(p, g, v, grad_scale, s) : sgd_as<false, false>(p, g, v, grad_scale, s);
  }
}

void Adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) {
  const double correction1 = 1.0 - std::pow(a.beta1, double(a.step));
  const double correction2 = 1.0 - std::pow(a.beta2, double(a.step));
  const V scale = splat(float(grad_scale));
  const V keep = splat(a.decoupled ? float(1.0 - a.lr * a.weight_decay) : 1.0f);
  const V l2 = splat(a.decoupled ? 0.0f : float(a.weight_decay));
  const V beta1 = splat(float(a.beta1)), rest1 = splat(float(1.0 - a.beta1));
  const V beta2 = splat(float(a.beta2)), rest2 = splat(float(1.0 - a.beta2));
  const V rate = splat(float(a.lr / correction1)), root = splat(float(1.0 / std::sqrt(correction2))), eps = splat(float(a.eps));
  update_rows(
      [=](auto part, float* weight, float* grad, float* first_moment, float* second_moment) HWY_ATTR {
        const V w = part.get(weight);
        const V gradient = hn::MulAdd(w, l2, hn::Mul(part.get(grad), scale));
        const V mean = hn::MulAdd(part.get(first_moment), beta1, hn::Mul(gradient, rest1));
        const V square = hn::MulAdd(part.get(second_moment), beta2, hn::Mul(hn::Mul(gradient, gradient), rest2));
        part.put(mean, first_moment);
        part.put(square, second_moment);
        const V step = hn::Div(hn::Mul(mean, rate), hn::MulAdd(hn::Sqrt(square), root, eps));
        part.put(hn::Sub(hn::Mul(w, keep), step), weight);
      },
      p, g, m, v);
}

void Lerp(RowsView y, RowsView x, double weight) {
  const V keep = splat(float(1.0 - weight)), take = splat(float(weight));
  map_rows(
      y, [=](V v, V old) HWY_ATTR { return hn::MulAdd(v, take, hn::Mul(old, keep)); }, x, y);
}

// Squares and sums in double: gradients span many orders of magnitude.
double SumOfSquares(RowsView x) {
  using F64 = hn::ScalableTag<double>;
  const F64 d;
  const hn::Rebind<float, F64> half;
  constexpr size_t kStep = kLanes / 2;
  const RowCut cut(x);
  std::vector<double> partial(size_t(cut.chunks()));
  parallel_chunks(cut.chunks(), [&](int64_t chunk) HWY_ATTR {
    auto a = hn::Zero(d);
    auto b = hn::Zero(d);
    double rest = 0;
    cut.for_each_run(chunk, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
      const float* p = at(x, row, column);
      size_t i = 0;
      for (; i + 2 * kStep <= n; i += 2 * kStep) {
        const auto u = hn::PromoteTo(d, hn::LoadU(half, p + i)), v = hn::PromoteTo(d, hn::LoadU(half, p + i + kStep));
        a = hn::MulAdd(u, u, a);
        b = hn::MulAdd(v, v, b);
      }
      for (; i < n; ++i) rest += double(p[i]) * double(p[i]);
    });
    partial[size_t(chunk)] = rest + hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b)));
  });
  double total = 0;
  for (double s : partial) total += s;
  return total;
}

bool AllFinite(RowsView x) {
  const RowCut cut(x);
  std::atomic<bool> finite{true};
  parallel_chunks(cut.chunks(), [&](int64_t chunk) HWY_ATTR {
    if (!finite.load(std::memory_order_relaxed)) return;
    // x - x is NaN for infinities and NaN, zero otherwise; NaN stays in the sum.
    V sum = hn::Zero(F32());
    cut.for_each_run(chunk, [&](int64_t row, int64_t column, size_t n) HWY_ATTR {
      const float* p = at(x, row, column);
      for_each_vector(n, [&](size_t i, auto part) HWY_ATTR {
        const V v = part.get(p + i);
        sum = hn::Add(sum, hn::Sub(v, v));
      });
    });
    if (!hn::AllTrue(F32(), hn::Eq(sum, sum))) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {

HWY_EXPORT(Sgd);
HWY_EXPORT(Adam);
HWY_EXPORT(Lerp);
HWY_EXPORT(SumOfSquares);
HWY_EXPORT(AllFinite);

void sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) {
  HWY_DYNAMIC_DISPATCH(Sgd)(p, g, v, grad_scale, s);
}
void adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) {
  HWY_DYNAMIC_DISPATCH(Adam)(p, g, m, v, grad_scale, a);
}
void lerp(RowsView y, RowsView x, double weight) { HWY_DYNAMIC_DISPATCH(Lerp)(y, x, weight); }
double sum_of_squares(RowsView x) { return HWY_DYNAMIC_DISPATCH(SumOfSquares)(x); }
bool all_finite(RowsView x) { return HWY_DYNAMIC_DISPATCH(AllFinite)(x); }

}  // namespace tessera::cpu
#endif
