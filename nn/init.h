// Parameter initialisation with the framework defaults of the original (spec 1.5): uniform in +-1/sqrt(fan_in) for weights and biases
// of convolutions; batch norm keeps gamma 1, beta 0.
#pragma once

#include <cstdint>

#include "nn/module.h"

namespace tessera {

// Every parameter draws from its own stream, named by the seed and a hash of its name: adding a layer changes no other one.
void init_parameters(Module& root, uint64_t seed);

}  // namespace tessera
