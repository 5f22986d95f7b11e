#include <cstdio>

#include "tools/verbs/json_text.h"
#include "tools/verbs/verbs.h"
#include "yolo/io/weights.h"
#include "yolo/train/best_epoch.h"

namespace tessera {

int run_inspect(const Config& config) {
  LoadedModel loaded = load_model(config.text("model"));
  YoloSeg& model = *loaded.model;
  const int64_t size = config.integer("imgsz");
  if (size % model.max_stride() != 0) {
    throw Error(ErrorCode::kUsage, fmt::format("imgsz={} is not a multiple of {}", size, model.max_stride()), {},
                fmt::format("the next one is {}", (size / model.max_stride() + 1) * model.max_stride()));
  }
  if (!config.flag("json")) {
    fmt::print("{}", format_layer_table(model, size, size));
    if (const std::string training = describe_training(loaded.meta); !training.empty()) fmt::print("training: {}\n", training);
    return 0;
  }
  const ModelCounts counts = model.counts();
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  double flops = 0;
  for (const LayerSummary& l : model.layer_table(size, size)) {
    nlohmann::ordered_json outputs = nlohmann::ordered_json::array();
    for (const Shape& s : l.outputs) outputs.push_back(std::vector<int64_t>(s.begin(), s.end()));
    layers.push_back({{"index", l.index}, {"from", l.from}, {"repeats", l.repeats}, {"module", l.module}, {"arguments", l.arguments},
                      {"parameters", l.parameters}, {"outputs", outputs}, {"flops", l.flops}, {"bytes", l.bytes}});
    flops += l.flops;
  }
  nlohmann::ordered_json j = {{"command", "inspect"}, {"model", model.spec().name}, {"imgsz", size}, {"nc", model.nc()},
                                    {"names", loaded.names}, {"parameters", counts.parameters}, {"fused_parameters", counts.fused_parameters},
                                    {"state_entries", counts.state_entries}, {"gflops", flops / 1e9}, {"layers", layers}};
  if (loaded.meta.epoch >= 0) j["epoch"] = loaded.meta.epoch + 1;
  if (const BestEpoch best = BestEpoch::restored(loaded.meta); best.kept >= 0) {
    j.update({{"best_epoch", best.kept + 1}, {"best_metric", best_metric_of(loaded.meta)}, {"best_value", best.value}});
  }
  print_json(j);
  return 0;
}

}  // namespace tessera
