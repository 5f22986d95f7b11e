// Differentiable concatenation.
#pragma once

#include <span>

#include "autograd/variable.h"

namespace tessera::ag {

// Along the last axis (channels), which alone may differ in size: a view when the parts already lie side by side in one buffer,
// else a copy.
Variable concat_channels(std::span<const Variable> parts);
// Along any other axis: a copy.
Variable concat(std::span<const Variable> parts, int axis);

}  // namespace tessera::ag
