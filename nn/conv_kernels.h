// The kernels of single layers (tensor/conv_choice.h).
#pragma once

#include "nn/module.h"

namespace tessera {

// Gives every layer below `root` the kernels that the patterns of --conv name for it (names as nn/layer_names.h).
// Error(kUsage): a pattern that names none.
void choose_conv_kernels(Module& root);

}  // namespace tessera
