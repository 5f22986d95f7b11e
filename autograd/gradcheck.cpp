#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "autograd/grad_mode.h"
#include "tensor/backend.h"

namespace tessera {

namespace {

double weight(int64_t i) { return std::sin(1.0 + 1.6180339887498949 * double(i)); }

Tensor weights_like(const Tensor& y) {
  const Tensor w = Tensor::empty(y.shape(), DType::kF64);
  double* p = w.data<double>();
  for (int64_t i = 0; i < w.numel(); ++i) p[i] = weight(i);
  return w;
}

double weighted_sum(const Tensor& y) {
  const Tensor dense = y.contiguous();
  const double* p = dense.data<double>();
  double sum = 0.0;
  for (int64_t i = 0; i < dense.numel(); ++i) sum += weight(i) * p[i];
  return sum;
}

}  // namespace

GradCheckResult gradcheck(const std::function<Variable(const std::vector<Variable>&)>& f, const std::vector<Tensor>& inputs,
                          const GradCheckOptions& options) {
  Backend* ref = find_backend("ref");
  TESSERA_CHECK(ref != nullptr, "gradcheck needs the reference backend");
  BackendGuard guard(*ref);

  std::vector<Variable> leaves;
  for (const Tensor& t : inputs) {
    TESSERA_CHECK(t.dtype() == DType::kF64, "gradcheck: input is {}, expected f64", describe(t));
    leaves.emplace_back(t.clone(), true);
  }
  const Variable y = f(leaves);
  y.backward(weights_like(y.data()));

  GradCheckResult result;
  NoGrad no_grad;
  std::vector<Variable> probes;
  for (const Tensor& t : inputs) probes.emplace_back(t.clone());
  auto at = [&](double* x, double value) {
    const double kept = *x;
    *x = value;
    const double sum = weighted_sum(f(probes).data());
    *x = kept;
    return sum;
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    double* x = probes[i].data().data<double>();
    const Tensor grad = leaves[i].grad().defined() ? leaves[i].grad().contiguous() : Tensor::zeros(inputs[i].shape(), DType::kF64);
    const double* analytic = grad.data<double>();
    for (int64_t k = 0; k < inputs[i].numel(); ++k) {
      const double h = options.step, v = x[k];
      const double numeric = (at(x + k, v - 2 * h) - 8 * at(x + k, v - h) + 8 * at(x + k, v + h) - at(x + k, v + 2 * h)) / (12 * h);
      const double error = std::abs(analytic[k] - numeric) / std::max(1.0, std::abs(numeric));
      if (error > result.max_error || !std::isfinite(error)) {
        result.max_error = error;
        result.worst = fmt::format("input {}, element {}: analytic {:.9g}, numeric {:.9g}", i, k, analytic[k], numeric);
      }
      if (!(error <= options.tolerance)) result.ok = false;
    }
  }
  return result;
}

}  // namespace tessera
