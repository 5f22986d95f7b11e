#include "tensor/ops/matmul.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
MatrixView matrix(const Tensor& t, bool transpose) {
  const int r = t.rank();
  MatrixView m{t.raw(), t.dtype(), 1, t.shape()[r - 2], t.shape()[r - 1], 0, t.strides()[r - 2], t.strides()[r - 1]};
  if (r == 3 && t.shape()[0] > 1) {
    m.batch = t.shape()[0];
    m.batch_stride = t.strides()[0];
  }
  if (transpose) {
    std::swap(m.rows, m.cols);
    std::swap(m.row_stride, m.col_stride);
  }
  return m;
}
}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  check_floating("matmul", "a", a);
  check_type_and_device("matmul", "b", b, a.dtype(), a.device());
  TESSERA_CHECK((a.rank() == 2 || a.rank() == 3) && (b.rank() == 2 || b.rank() == 3),
                "matmul: got a {} and b {}, expected rank 2 or 3", describe(a), describe(b));
  MatrixView ma = matrix(a, transpose_a);
  MatrixView mb = matrix(b, transpose_b);
  TESSERA_CHECK(ma.cols == mb.rows, "matmul: got {} x {} times {} x {} (a {}, b {}), expected equal inner sizes", ma.rows, ma.cols,
                mb.rows, mb.cols, describe(a), describe(b));
  const Shape batch_a = a.rank() == 3 ? Shape{a.shape()[0]} : Shape{};
  const Shape batch_b = b.rank() == 3 ? Shape{b.shape()[0]} : Shape{};
  Shape shape = broadcast(batch_a, batch_b);
  const int64_t batch = numel(shape);
  shape.push_back(ma.rows);
  shape.push_back(mb.cols);
  Tensor c = Tensor::empty(shape, a.dtype(), a.device());
  ma.batch = mb.batch = batch;
  const MatrixView mc{c.raw(), c.dtype(), batch, ma.rows, mb.cols, ma.rows * mb.cols, mb.cols, 1};
  backend_for(a.device()).matmul(ma, mb, mc, /*accumulate=*/false);
  return c;
}

}  // namespace tessera::ops
