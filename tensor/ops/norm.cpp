#include "tensor/ops/norm.h"

#include "tensor/ops/checks.h"
#include "tensor/ops/pointwise.h"

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
  TESSERA_CHECK(is_floating(parts.dtype()) && parts.rank() == 2 && parts.size(0) > 0 && parts.size(1) % 2 == 1 && parts.is_dense(),
                "{}: got parts {}, expected dense (ranks, 1 + 2 C)", op, describe(parts));
}

BatchNormView batch_norm_view(std::string_view op, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& gamma,
                              const Tensor& beta) {
  check_channels(op, "mean", mean, x);
  check_channels(op, "rstd", rstd, x);
  check_channels(op, "gamma", gamma, x);
  check_channels(op, "beta", beta, x);
  return {mean.raw(), rstd.raw(), gamma.raw(), beta.raw()};
}
}  // namespace

BatchNormStats batch_norm_stats(const Tensor& x, double eps) {
  check_batch("batch_norm_stats", x);
  TESSERA_CHECK(eps > 0, "batch_norm_stats: got eps = {}, expected a positive number", eps);
  const Tensor in = readable(x);
  const Shape channels{x.size(-1)};
  const DType type = wide_of(x.dtype());
  BatchNormStats s{Tensor::empty(channels, type, x.device()), Tensor::empty(channels, type, x.device()), {}};
  backend_for(x.device()).batch_norm_stats(in.rows(), s.mean.raw(), s.var.raw());
  const Tensor deviation = unary(UnaryOp::kSqrt, binary(BinaryOp::kAdd, s.var, Tensor::full({}, eps, type, x.device())));
  s.rstd = binary(BinaryOp::kDivide, Tensor::full({}, 1.0, type, x.device()), deviation);
  return s;
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
  Tensor part = Tensor::empty({1 + 2 * x.size(-1)}, wide_of(x.dtype()), x.device());
  backend_for(x.device()).batch_norm_part(in.rows(), part.raw());
  return part;
}

JoinedStats batch_norm_join(const Tensor& parts, double eps) {
  check_parts("batch_norm_join", parts);
  TESSERA_CHECK(eps > 0, "batch_norm_join: got eps = {}, expected a positive number", eps);
  const auto channels = [&] { return Tensor::empty({(parts.size(1) - 1) / 2}, parts.dtype(), parts.device()); };
  JoinedStats s{channels(), channels(), channels()};
  backend_for(parts.device()).batch_norm_join(parts.rows(), eps, s.mean.raw(), s.rstd.raw(), s.unbiased.raw());
  return s;
}

BatchNormCorrection batch_norm_correction(const Tensor& parts, const Tensor& sums, int64_t own, const Tensor& gamma,
                                          const Tensor& rstd) {
  constexpr std::string_view op = "batch_norm_correction";
  check_parts(op, parts);
  const int64_t channels = (parts.size(1) - 1) / 2;
  check_like(op, "sums", sums, {parts.size(0), 2 * channels}, parts);
  check_vector(op, "gamma", gamma, channels, parts.dtype(), parts.device());
  check_vector(op, "rstd", rstd, channels, parts.dtype(), parts.device());
  TESSERA_CHECK(sums.is_dense() && own >= 0 && own < parts.size(0), "{}: got sums {} and rank {} of {}", op, describe(sums), own,
                parts.size(0));
  BatchNormCorrection c{Tensor::empty({channels}, parts.dtype(), parts.device()),
                        Tensor::empty({channels}, parts.dtype(), parts.device())};
  backend_for(parts.device())
      .batch_norm_correction(parts.rows(), sums.rows(), own, gamma.raw(), rstd.raw(), c.slope.raw(), c.offset.raw());
  return c;
}

}  // namespace tessera::ops
