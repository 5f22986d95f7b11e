// Between our state dict and the files of the original and everything that reads them: names, and the order of filter axes. Files
// hold PyTorch's order, (O, I, kH, kW) and (I, O, 2, 2) for the transposed convolution; memory holds (O, kH, kW, I).
#pragma once

#include <string>

#include "nn/io/state_dict.h"

namespace tessera {

// "model.0.conv.weight" from what wrappers make of it ("module.model.0...", "model.model.0...").
std::string canonical_name(const std::string& name);

// Filters re-ordered (copied), everything else shared; names stay. Any state with the model's names: weights, momentum, averages.
StateDict to_file_layout(const StateDict& state);
// The inverse, names made canonical.
StateDict from_file_layout(const StateDict& state);
Shape to_file_shape(const std::string& name, const Shape& shape);

}  // namespace tessera
