// Every environment switch of the program, read in one place and documented in one list (env_switches()).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

struct EnvSwitch {
  std::string_view name;
  std::string_view meaning;
};

// The switches that the program reads, in alphabetical order; `tessera info` prints them.
std::span<const EnvSwitch> env_switches();

// Value of a listed switch; empty when unset or set to the empty string. An unlisted name is a bug.
std::optional<std::string> env(std::string_view name);

}  // namespace tessera
