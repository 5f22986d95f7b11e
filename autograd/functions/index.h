// Differentiable gather of rows.
#pragma once

#include <span>

#include "autograd/variable.h"

namespace tessera::ag {

// x (..., cols) seen as rows, index i64 (n): result (n, cols). The gradient of a row that is gathered several times is the sum.
Variable gather_rows(const Variable& x, const Tensor& index);

// Rows of several tables, all with the same number of columns. index i64 (tables, n) has one entry other than -1 in column i at
// most: index[t, i] makes row i of the result that row of table t. Without such an entry row i is 0.
Variable gather_rows(std::span<const Variable> tables, const Tensor& index);

}  // namespace tessera::ag
