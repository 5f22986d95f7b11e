#include "tools/verbs/inference_model.h"

#include <fmt/ranges.h>

#include "yolo/config_values.h"

namespace tessera {

LoadedModel load_inference_model(const Config& config, LogStyle log) {
  LoadedModel loaded = load_model(config.text("model"));
  loaded.model->to(device_of(config));
  loaded.model->set_compute_type(compute_type_of(config));
  for (const std::string& w : loaded.warnings) log_line(log, "warning: " + w);
  loaded.model->fold_for_good();
  return loaded;
}

Config with_arguments_of_training(const LoadedModel& loaded, const Config& given, LogStyle log) {
  Config config = given;
  const std::string& file = given.text("model");
  std::vector<std::string> taken;
  const auto text_of = [&](const char* name) {
    const auto found = loaded.arguments.find(name);
    return found == loaded.arguments.end() || found->second == "null" ? std::string() : found->second;
  };
  const auto take = [&](const char* name, const std::string& value) {
    if (value.empty() || given.is_explicit(name) || value == config.text(name)) return;
    config.set(name, value, file);
    taken.push_back(fmt::format("--{} {}", shown_name(name), value));
  };
  const std::optional<int64_t> side = whole_number(text_of("imgsz"));
  if (side && *side >= 32 && *side <= 8192) take("imgsz", std::to_string((*side + 31) / 32 * 32));
  if (given.verb() == kVal) {
    if (!given.is_explicit("data")) take("data_root", text_of("data_root"));
    take("data", text_of("data"));
    if (boolean_of(text_of("single_cls")).value_or(false)) take("single_cls", "true");
  }
  if (!taken.empty()) log_line(log, fmt::format("as in the training of {}: {}", file, fmt::join(taken, " ")));
  return config;
}

}  // namespace tessera
