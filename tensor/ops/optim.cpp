#include "tensor/ops/optim.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
void check_state(std::string_view op, std::string_view what, const Tensor& t, const Tensor& p) {
  check_like(op, what, t, p.shape(), p);
  TESSERA_CHECK(t.layout() != Layout::kGeneral && (t.dtype() == DType::kF32 || t.dtype() == DType::kF64),
                "{}: got {} {} with strides {}, expected f32 or f64 rows", op, what, describe(t), to_string(t.strides()));
}
}  // namespace

void sgd(const Tensor& p, const Tensor& g, const Tensor& v, double grad_scale, const SgdParams& s) {
  check_defined("sgd", "p", p);
  check_state("sgd", "p", p, p);
  check_state("sgd", "g", g, p);
  check_state("sgd", "v", v, p);
  p.bump_version();
  v.bump_version();
  backend_for(p.device()).sgd(p.rows(), g.rows(), v.rows(), grad_scale, s);
}

void adam(const Tensor& p, const Tensor& g, const Tensor& m, const Tensor& v, double grad_scale, const AdamParams& a) {
  check_defined("adam", "p", p);
  check_state("adam", "p", p, p);
  check_state("adam", "g", g, p);
  check_state("adam", "m", m, p);
  check_state("adam", "v", v, p);
  TESSERA_CHECK(a.step >= 1, "adam: got step {}, expected 1 for the first update", a.step);
  p.bump_version();
  m.bump_version();
  v.bump_version();
  backend_for(p.device()).adam(p.rows(), g.rows(), m.rows(), v.rows(), grad_scale, a);
}

void lerp(const Tensor& y, const Tensor& x, double weight) {
  check_defined("lerp", "y", y);
  check_state("lerp", "y", y, y);
  check_state("lerp", "x", x, y);
  y.bump_version();
  backend_for(y.device()).lerp(y.rows(), x.rows(), weight);
}

double sum_of_squares(const Tensor& x) {
  check_floating("sum_of_squares", "x", x);
  const Tensor in = readable(x);
  return backend_for(x.device()).sum_of_squares(in.rows());
}

bool all_finite(const Tensor& x) {
  check_floating("all_finite", "x", x);
  const Tensor in = readable(x);
  return backend_for(x.device()).all_finite(in.rows());
}

}  // namespace tessera::ops
