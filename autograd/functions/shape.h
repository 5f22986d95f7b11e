// Differentiable views: no data moves in the forward pass.
#pragma once

#include "autograd/variable.h"

namespace tessera::ag {

Variable view(const Variable& x, const Shape& shape);                   // one size may be -1
Variable narrow_channels(const Variable& x, int64_t start, int64_t n);  // channels [start, start + n) of the last axis

}  // namespace tessera::ag
