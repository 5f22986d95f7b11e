// The measurements behind `bench`: training step, inference, single convolutions, loader, evaluation; each beside its bound.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "yolo/config.h"
#include "yolo/report/progress.h"

namespace tessera {

// The JSON object of docs/cli.md for config.text("what"). Medians over --runs.
nlohmann::ordered_json run_benchmark(const Config& config, LogStyle log);
std::string format_benchmark(const nlohmann::ordered_json& result);

}  // namespace tessera
