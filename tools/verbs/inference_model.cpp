#include "tools/verbs/inference_model.h"

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

}  // namespace tessera
