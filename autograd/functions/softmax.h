// Differentiable softmax and log-softmax over the last axis; formulas in tensor/ops/softmax.h.
#pragma once

#include "autograd/variable.h"

namespace tessera::ag {

Variable softmax(const Variable& x);
Variable log_softmax(const Variable& x);

}  // namespace tessera::ag
