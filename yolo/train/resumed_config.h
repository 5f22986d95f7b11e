// The arguments of a training as its checkpoints keep them, and those of a resumed one: the stored ones, but for what was given
// anew and may be.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "yolo/config.h"

namespace tessera {

// Every argument as text, and under a key of its own which of them the user had given.
std::map<std::string, std::string> stored_arguments(const Config& config);

// `file`: the checkpoint that `stored` is from. Error(kUsage): an argument that cannot change was given another value, or the run
// was on another device and --device is not given. Error(kData): stored arguments are damaged.
Config resumed_config(const Config& given, const std::map<std::string, std::string>& stored, const std::filesystem::path& file);

}  // namespace tessera
