// Differentiable sums and means.
#pragma once

#include "autograd/variable.h"

namespace tessera::ag {

Variable sum(const Variable& x, const std::vector<int>& axes = {}, bool keep_dims = false);   // empty axes: all
Variable mean(const Variable& x, const std::vector<int>& axes = {}, bool keep_dims = false);

}  // namespace tessera::ag
