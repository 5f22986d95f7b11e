// Differentiable matrix product.
#pragma once

#include "autograd/variable.h"

namespace tessera::ag {

// a (..., m, k) times b (..., k, n); rank 2 or 3, equal ranks. With transpose_b, b is (..., n, k).
Variable matmul(const Variable& a, const Variable& b, bool transpose_b = false);

}  // namespace tessera::ag
