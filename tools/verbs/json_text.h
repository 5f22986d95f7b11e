// A JSON object as it goes to stdout or into a file: paths and names that are not UTF-8 are shown with replacement characters.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tensor/base/interrupt.h"

namespace tessera {

inline std::string json_text(const nlohmann::ordered_json& j, int indent = -1) {
  return j.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

// What a signal that ends the program at once leaves on stdout under --json.
inline constexpr std::string_view kInterruptedJson =
    R"({"error":{"code":7,"message":"interrupted","hint":"start it again; a training: train_seg --resume"}})"
    "\n";

// The one object of stdout under --json.
inline void print_json(const nlohmann::ordered_json& j) {
  const std::string text = json_text(j);
  output_begins();  // whole or not at all
  fmt::print("{}", text);
}

}  // namespace tessera
