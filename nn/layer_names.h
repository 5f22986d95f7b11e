// Names for the owners of scopes (tensor/base/scope.h).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "nn/module.h"

namespace tessera {

// Address and name of every module below `root`, in order; what is inside a Conv block bears the block's name ("model.2.m.0.cv1"),
// since a reader of a profile thinks of it as one layer.
std::vector<std::pair<const void*, std::string>> layer_names(Module& root);

}  // namespace tessera
