#include "tensor/ops/norm.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
void check_batch(std::string_view op, const Tensor& x) {
  check_defined(op, "x", x);
  TESSERA_CHECK(is_floating(x.dtype()) && x.rank() >= 2 && x.numel() > 0,
                "{}: got x {}, expected non-empty (..., C) of a floating type", op, describe(x));
}

void check_channels(std::string_view op, std::string_view what, const Tensor& t, const Tensor& x) {
  check_vector(op, what, t, x.size(-1), wide_of(x.dtype()), x.device());
}

void check_parts(std::string_view op, const Tensor& parts) {
  check_defined(op, "parts", parts);
  TESSERA_CHECK(
      parts.dtype() == DType::kF64 && parts.rank() == 2 && parts.size(0) > 0 && parts.size(1) % 2 == 1 && parts.is_dense(),
      "{}: got parts {}, expected dense f64 (ranks, 1 + 2 C)", op, describe(parts));
}

// Rows of another rank than 4 as the pixels of one image.
ImageView images(const Tensor& x) {
  if (x.rank() == 4) return x.image();
  const RowsView rows = x.rows();
  return {rows.p, rows.t, 1, 1, rows.rows, rows.cols, rows.pitch};
}

BatchNormView batch_norm_view(std::string_view op, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& gamma,
                              const Tensor& beta) {
  check_channels(op, "mean", mean, x);
  check_channels(op, "rstd", rstd, x);
  check_channels(op, "gamma", gamma, x);
  check_channels(op, "beta", beta, x);
  return {mean.raw(), rstd.raw(), gamma.raw(), beta.raw()};
}

void check_eps(std::string_view op, double eps) {
  TESSERA_CHECK(eps > 0, "{}: got eps = {}, expected a positive number", op, eps);
}

BatchNormStats stats_of(int64_t channels, DType type, Device device) {
  return {Tensor::empty({channels}, type, device), Tensor::empty({channels}, type, device)};
}

// Of running statistics that will be written, beside the batch's.
RunningStatsView running_view(std::string_view op, const RunningStats& running, const Tensor& mean) {
  if (!running.mean.defined() && !running.var.defined()) return {};
  check_vector(op, "running mean", running.mean, mean.numel(), mean);
  check_vector(op, "running variance", running.var, mean.numel(), mean);
  running.mean.bump_version();
  running.var.bump_version();
  return {running.mean.raw(), running.var.raw(), running.momentum};
}
}  // namespace

BatchNormStats batch_norm_stats(const Tensor& x, double eps, const RunningStats& running) {
  constexpr std::string_view op = "batch_norm_stats";
  check_batch(op, x);
  check_eps(op, eps);
  BatchNormStats s = stats_of(x.size(-1), wide_of(x.dtype()), x.device());
  const RunningStatsView averages = running_view(op, running, s.mean);
  const Tensor in = readable(x);
  backend_for(x.device()).batch_norm_stats(images(in), eps, averages, s.mean.raw(), s.rstd.raw());
  return s;
}

ConvWithStats conv2d_with_stats(const Tensor& x, const Tensor& w, const ConvParams& p, double eps, const RunningStats& running) {
  constexpr std::string_view op = "conv2d_with_stats";
  check_batch(op, x);
  check_type_and_device(op, "w", w, x.dtype(), x.device());
  check_eps(op, eps);
  const Shape shape = conv2d_shape(x.shape(), w.shape(), p);
  const Tensor in = readable(x), filter = w.contiguous();
  ConvWithStats r{Tensor::empty(shape, x.dtype(), x.device()), stats_of(shape[3], wide_of(x.dtype()), x.device())};
  const RunningStatsView averages = running_view(op, running, r.stats.mean);
  backend_for(x.device())
      .conv2d_with_stats(in.image(), filter.filter(), r.y.image(), p, eps, averages, r.stats.mean.raw(), r.stats.rstd.raw());
  return r;
}

Tensor batch_norm_rstd(const Tensor& var, double eps) {
  constexpr std::string_view op = "batch_norm_rstd";
  check_defined(op, "var", var);
  check_vector(op, "var", var, var.numel(), var);
  check_eps(op, eps);
  Tensor rstd = Tensor::empty(var.shape(), var.dtype(), var.device());
  backend_for(var.device()).batch_norm_rstd(var.view({1, var.numel()}).rows(), eps, rstd.raw());
  return rstd;
}

Tensor batch_norm_apply(const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& gamma, const Tensor& beta,
                        Activation act, const Tensor& residual, const Tensor& into) {
  check_batch("batch_norm_apply", x);
  const BatchNormView bn = batch_norm_view("batch_norm_apply", x, mean, rstd, gamma, beta);
  Tensor addend;
  RowsView addend_rows{};
  if (residual.defined()) {
    check_like("batch_norm_apply", "residual", residual, x.shape(), x);
    addend = readable(residual);
    addend_rows = addend.rows();
  }
  const Tensor in = readable(x);
  Tensor y = output("batch_norm_apply", into, x.shape(), x);
  backend_for(x.device()).batch_norm_apply(in.rows(), bn, act, addend_rows, y.rows());
  return y;
}

Tensor batch_norm_backward(const Tensor& x, const Tensor& dy, const Tensor& mean, const Tensor& rstd, const Tensor& gamma,
                           const Tensor& beta, Activation act, const Tensor& dgamma, const Tensor& dbeta, bool accumulate) {
  check_batch("batch_norm_backward", x);
  check_like("batch_norm_backward", "dy", dy, x.shape(), x);
  const BatchNormView bn = batch_norm_view("batch_norm_backward", x, mean, rstd, gamma, beta);
  check_channels("batch_norm_backward", "dgamma", dgamma, x);
  check_channels("batch_norm_backward", "dbeta", dbeta, x);
  dgamma.bump_version();
  dbeta.bump_version();
  const Tensor in = readable(x);
  const Tensor gradient = readable(dy);
  Tensor dx = Tensor::empty(x.shape(), x.dtype(), x.device());
  backend_for(x.device())
      .batch_norm_backward(in.rows(), gradient.rows(), bn, act, dx.rows(), dgamma.raw(), dbeta.raw(), accumulate);
  return dx;
}

Tensor batch_norm_part(const Tensor& x) {
  check_batch("batch_norm_part", x);
  const Tensor in = readable(x);
  Tensor part = Tensor::empty({1 + 2 * x.size(-1)}, DType::kF64, x.device());
  backend_for(x.device()).batch_norm_part(images(in), part.data<double>());
  return part;
}

BatchNormStats batch_norm_join(const Tensor& parts, DType type, double eps, const RunningStats& running) {
  constexpr std::string_view op = "batch_norm_join";
  check_parts(op, parts);
  check_eps(op, eps);
  TESSERA_CHECK(wide_of(type) == type, "{}: got type {}, expected f32 or f64", op, name_of(type));
  BatchNormStats s = stats_of((parts.size(1) - 1) / 2, type, parts.device());
  const RunningStatsView averages = running_view(op, running, s.mean);
  backend_for(parts.device()).batch_norm_join(parts.rows(), eps, averages, type, s.mean.raw(), s.rstd.raw());
  return s;
}

BatchNormCorrection batch_norm_correction(const Tensor& parts, const Tensor& sums, int64_t own, const Tensor& gamma,
                                          const Tensor& rstd) {
  constexpr std::string_view op = "batch_norm_correction";
  check_parts(op, parts);
  const int64_t channels = (parts.size(1) - 1) / 2;
  const DType type = gamma.dtype();
  check_type_and_device(op, "sums", sums, type, parts.device());
  check_vector(op, "gamma", gamma, channels, type, parts.device());
  check_vector(op, "rstd", rstd, channels, type, parts.device());
  const Shape of_all{parts.size(0), 2 * channels};
  TESSERA_CHECK(sums.shape() == of_all && sums.is_dense() && own >= 0 && own < parts.size(0), "{}: got sums {} and rank {} of {}",
                op, describe(sums), own, parts.size(0));
  BatchNormCorrection c{Tensor::empty({channels}, type, parts.device()), Tensor::empty({channels}, type, parts.device())};
  backend_for(parts.device())
      .batch_norm_correction(parts.rows(), sums.rows(), own, gamma.raw(), rstd.raw(), c.slope.raw(), c.offset.raw());
  return c;
}

}  // namespace tessera::ops
