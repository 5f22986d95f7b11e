// The arguments of the programs here that take those of `tessera train`: FOLDER name=value ...
#pragma once

#include <string>

#include "tensor/base/check.h"
#include "yolo/config.h"

namespace tessera {

// Error(kUsage): no folder, or an argument that is not name=value.
inline Config train_config(int argc, char** argv) {
  if (argc < 2) throw Error(ErrorCode::kUsage, fmt::format("usage: {} FOLDER name=value ...", argv[0]));
  Config config(kTrain);
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (equals == std::string::npos) throw Error(ErrorCode::kUsage, fmt::format("'{}': expected name=value", argument));
    config.set(argument.substr(0, equals), argument.substr(equals + 1), "command line");
  }
  return config;
}

}  // namespace tessera
