// Which Python names a pickle may mention, and what tensor storages are called.
#pragma once

#include <optional>
#include <string_view>

#include "tensor/dtype.h"

namespace tessera {

// True for a name that exists to run code, start programs, open files or reach the network. A model file has no use for one;
// nothing would be run, but whoever made the file meant it to.
bool names_code(std::string_view module, std::string_view name);

// "FloatStorage" -> f32, ...; empty for kinds that have no type here.
std::optional<DType> storage_type(std::string_view name);

}  // namespace tessera
