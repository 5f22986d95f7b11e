#include "tensor/ops/random.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
const Tensor& checked(std::string_view op, const Tensor& y) {
  check_floating(op, "y", y);
  // A stream has 2^32 blocks of four numbers.
  TESSERA_CHECK(y.is_dense() && y.numel() <= int64_t{1} << 34,
                "{}: got y {} with strides {}, expected a dense tensor of at most 2^34", op, describe(y), to_string(y.strides()));
  y.bump_version();
  return y;
}
}  // namespace

void uniform(const Tensor& y, const RandomStream& s, double low, double high) {
  const RowsView rows = checked("uniform", y).rows();
  backend_for(y.device()).uniform(rows, s, low, high);
}

void normal(const Tensor& y, const RandomStream& s, double mean, double deviation) {
  const RowsView rows = checked("normal", y).rows();
  backend_for(y.device()).normal(rows, s, mean, deviation);
}

}  // namespace tessera::ops
