// A JSON object as it goes to stdout or into a file: paths and names that are not UTF-8 are shown with replacement characters.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace tessera {

inline std::string json_text(const nlohmann::ordered_json& j, int indent = -1) {
  return j.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace tessera
