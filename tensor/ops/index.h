// Gather and scatter of rows. An index of -1 is no row: a gather leaves its row of y alone, a scatter drops its row of x.
#pragma once

#include "tensor/tensor.h"

namespace tessera {

class IndexOps {
 public:
  virtual ~IndexOps() = default;
  virtual void gather_rows(RowsView x, const int64_t* index, RowsView y) = 0;       // y[i] = x[index[i]]
  virtual void scatter_add_rows(RowsView x, const int64_t* index, RowsView y) = 0;  // y[index[i]] += x[i], in order of i
};

namespace ops {
// x (rows..., cols) seen as rows; index i64 (n), each in [-1, rows). Result (n, cols): `into`, or a new tensor, whose rows without an
// index are 0.
Tensor gather_rows(const Tensor& x, const Tensor& index, const Tensor& into = {});
void scatter_add_rows(const Tensor& x, const Tensor& index, const Tensor& y);
}  // namespace ops

}  // namespace tessera
