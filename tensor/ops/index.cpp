#include "tensor/ops/index.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
// A device cannot stop on a bad index, so only host indices are looked at.
void check_index(std::string_view op, const Tensor& index, int64_t rows, Device device) {
  check_type_and_device(op, "index", index, DType::kI64, device);
  TESSERA_CHECK(index.rank() == 1 && index.is_dense(), "{}: got index {}, expected a dense vector", op, describe(index));
  if (device.kind != Device::Kind::kCpu) return;
  const int64_t* p = index.data<int64_t>();
  for (int64_t i = 0; i < index.numel(); ++i) {
    TESSERA_CHECK(p[i] >= -1 && p[i] < rows, "{}: got index[{}] = {}, expected -1 <= index < {}", op, i, p[i], rows);
  }
}
}  // namespace

Tensor gather_rows(const Tensor& x, const Tensor& index, const Tensor& into) {
  check_defined("gather_rows", "x", x);
  TESSERA_CHECK(x.rank() >= 1, "gather_rows: got x {}, expected (rows..., cols)", describe(x));
  const Tensor in = readable(x);
  const RowsView rows = in.rows();
  check_index("gather_rows", index, rows.rows, x.device());
  const Shape shape{index.numel(), x.size(-1)};
  Tensor y = into.defined() ? output("gather_rows", into, shape, x) : Tensor::zeros(shape, x.dtype(), x.device());
  backend_for(x.device()).gather_rows(rows, index.data<int64_t>(), y.rows());
  return y;
}

void scatter_add_rows(const Tensor& x, const Tensor& index, const Tensor& y) {
  check_floating("scatter_add_rows", "x", x);
  check_type_and_device("scatter_add_rows", "y", y, x.dtype(), x.device());
  check_defined("scatter_add_rows", "index", index);
  TESSERA_CHECK(x.rank() >= 1 && y.rank() >= 1 && x.size(-1) == y.size(-1) && x.numel() == index.numel() * x.size(-1),
                "scatter_add_rows: got x {}, index {}, y {}, expected one index for each row of x and equal columns", describe(x),
                describe(index), describe(y));
  const RowsView target = written("scatter_add_rows", "y", y).rows();
  check_index("scatter_add_rows", index, target.rows, x.device());
  const Tensor in = readable(x);
  backend_for(x.device()).scatter_add_rows(in.rows(), index.data<int64_t>(), target);
}

}  // namespace tessera::ops
