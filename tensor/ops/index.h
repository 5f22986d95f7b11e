// Gather and scatter of rows of several tables of as many columns. index (tables, n) says for each table the row that belongs to row
// i of the result, or -1; of all tables at most one has a row for i. Entry points refuse other indices on the host only.
#pragma once

#include <span>

#include "tensor/tensor.h"

namespace tessera {

inline constexpr size_t kMostTables = 4;

class IndexOps {
 public:
  virtual ~IndexOps() = default;
  virtual void gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) = 0;  // 0 where no table has a row
  virtual void scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) = 0;  // += x[i], in order of i
};

namespace ops {
// Tables (rows..., cols) seen as rows, at most kMostTables; index i64 (tables, n), or (n) for one. Result (n, cols).
Tensor gather_rows(std::span<const Tensor> tables, const Tensor& index);
Tensor gather_rows(const Tensor& table, const Tensor& index);
void scatter_add_rows(const Tensor& x, const Tensor& index, std::span<const Tensor> tables);
void scatter_add_rows(const Tensor& x, const Tensor& index, const Tensor& table);
}  // namespace ops

}  // namespace tessera
