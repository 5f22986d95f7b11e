// Differentiable gather of rows.
#pragma once

#include <span>

#include "autograd/variable.h"

namespace tessera::ag {

// x (..., cols) seen as rows, index i64 (n): result (n, cols). The gradient of a row that is gathered several times is the sum.
Variable gather_rows(const Variable& x, const Tensor& index);

// Rows of several tables: row i of the result is row index[t, i] of the one table t where that is not -1, and 0 where there is none.
// index i64 (tables, n).
Variable gather_rows(std::span<const Variable> tables, const Tensor& index);

}  // namespace tessera::ag
