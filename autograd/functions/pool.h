// Differentiable max pooling and nearest-neighbour upsampling, channels last; formulas in tensor/ops/pool.h.
#pragma once

#include "autograd/variable.h"
#include "tensor/ops/pool.h"

namespace tessera::ag {

Variable max_pool2d(const Variable& x, const PoolParams& p, const Tensor& into = {});
Variable upsample2x(const Variable& x, const Tensor& into = {});

}  // namespace tessera::ag
