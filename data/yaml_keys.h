// What yaml leaves open and a user must not have to guess: which of two equal keys counts.
#pragma once

#include <yaml-cpp/yaml.h>

#include <set>
#include <string>

#include "tensor/base/check.h"

namespace tessera {

// Error(kData) naming the second one when a key of the map stands there twice.
inline void check_unique_keys(const YAML::Node& map, const std::string& file) {
  std::set<std::string> seen;
  for (const auto& entry : map) {
    if (!entry.first.IsScalar() || seen.insert(entry.first.Scalar()).second) continue;
    const YAML::Mark mark = entry.first.Mark();
    throw Error(ErrorCode::kData, fmt::format("the key '{}' stands here twice", entry.first.Scalar()),
                {file, mark.line + 1, mark.column + 1}, "remove one of the two");
  }
}

}  // namespace tessera
