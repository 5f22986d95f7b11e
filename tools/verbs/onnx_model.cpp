#include "tools/verbs/onnx_model.h"

namespace tessera {

std::unique_ptr<OnnxNetwork> open_onnx(const Config& config) {
  const std::string& file = config.text("model");
  if (!file.ends_with(".onnx")) return nullptr;
  for (const auto& [name, value] : {std::pair{"device", "cpu"}, std::pair{"precision", "fp32"}}) {
    if (config.text(name) == value) continue;
    throw Error(ErrorCode::kUsage, fmt::format("--{} {}: an .onnx file runs here with {} only", name, config.text(name), value), {file},
                "give the .safetensors or .pt that it was made of, or run the file with ONNX Runtime or TensorRT");
  }
  return std::make_unique<OnnxNetwork>(file);
}

Config fitted_to(const OnnxNetwork& network, const Config& config) {
  const std::string& file = config.text("model");
  Config out = config;
  const int64_t imgsz = network.imgsz(config.is_explicit("imgsz") ? config.integer("imgsz") : 0);
  if (!config.is_explicit("imgsz")) out.set("imgsz", std::to_string(imgsz), file);
  if (!config.is_explicit("batch")) out.set("batch", std::to_string(network.batch()), file);
  if (!network.dynamic()) out.set("rect", "false", file);
  return out;
}

}  // namespace tessera
