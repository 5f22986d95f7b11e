// Differentiable gather of rows.
#pragma once

#include "autograd/variable.h"

namespace tessera::ag {

// x (..., cols) seen as rows, index i64 (n): result (n, cols). The gradient of a row that is gathered several times is the sum.
Variable gather_rows(const Variable& x, const Tensor& index);

}  // namespace tessera::ag
