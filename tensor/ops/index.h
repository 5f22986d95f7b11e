// Gather and scatter of rows.
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
// x (rows..., cols) seen as rows; index i64 (n), each in [0, rows). Result (n, cols).
Tensor gather_rows(const Tensor& x, const Tensor& index);
void scatter_add_rows(const Tensor& x, const Tensor& index, const Tensor& y);
}  // namespace ops

}  // namespace tessera
