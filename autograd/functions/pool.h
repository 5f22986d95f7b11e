// Differentiable max pooling and nearest-neighbour upsampling, channels last; formulas in tensor/ops/pool.h.
#pragma once

#include "autograd/variable.h"
#include "tensor/ops/pool.h"

namespace tessera::ag {

// x (N,H,W,C). The result goes into `into`, a channel slice for instance, where that is defined.
Variable max_pool2d(const Variable& x, const PoolParams& p, const Tensor& into = {});
Variable upsample2x(const Variable& x, const Tensor& into = {});  // (N,2H,2W,C)

}  // namespace tessera::ag
