// The JSON form of a validation (docs/cli.md).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "yolo/metrics.h"

namespace tessera {

// {"map_style", "images", "instances", "box": {...}, "mask": {...}, "classes": [...], "speed_ms": {...}}
nlohmann::ordered_json to_json(const ValidationResult& result);

// The table printed after a validation: one row for all classes and one for each.
std::string format_table(const ValidationResult& result, bool per_class);

}  // namespace tessera
