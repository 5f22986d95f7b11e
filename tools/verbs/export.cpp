// export: the model as a file for other programs, checked before it is announced.
#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <map>

#include "tensor/base/shell_word.h"
#include "tools/verbs/inference_model.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/verbs.h"
#include "yolo/io/onnx_check.h"
#include "yolo/io/weights.h"

namespace tessera {

namespace {

namespace fs = std::filesystem;

// "640" or "480,640", also in brackets.
std::array<int64_t, 2> size_of(const Config& config) {
  std::string_view text = config.text("imgsz");
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  std::array<int64_t, 2> size{};
  const char *p = text.data(), *const end = p + text.size();
  size_t n = 0;
  for (; n < 2; ++n) {
    const auto [next, failed] = std::from_chars(p, end, size[n]);
    if (failed != std::errc()) break;
    p = next;
    if (p == end) return n == 0 ? std::array{size[0], size[0]} : size;
    if (*p++ != ',') break;
    while (p < end && *p == ' ') ++p;
  }
  throw Error(ErrorCode::kUsage, fmt::format("imgsz={}: expected one whole number, or height,width", config.text("imgsz")), {},
              "for example --imgsz 640 or --imgsz 480,640");
}

// What else the original exports to, and how one gets there from an ONNX file.
const std::map<std::string, std::string, std::less<>>& ways_from_onnx() {
  static const std::map<std::string, std::string, std::less<>> ways = {
      {"engine", "write --format onnx, then on the machine with the GPU: trtexec --onnx=best.onnx --saveEngine=best.engine --fp16"},
      {"openvino", "OpenVINO reads ONNX files as they are; for its own form: ovc best.onnx"},
      {"torchscript", "ONNX Runtime and OpenVINO run the ONNX file; PyTorch reads best.safetensors, whose names are those of the original's state dict"},
      {"coreml", "write --format onnx; coremltools converts from PyTorch, which reads best.safetensors"},
      {"saved_model", "write --format onnx, then onnx2tf -i best.onnx"},
      {"pb", "write --format onnx, then onnx2tf -i best.onnx"},
      {"tflite", "write --format onnx, then onnx2tf -i best.onnx, which writes float32 and float16 .tflite files"},
      {"edgetpu", "write --format onnx, then onnx2tf -i best.onnx -oiqt and edgetpu_compiler"},
      {"tfjs", "write --format onnx, then onnx2tf -i best.onnx and tensorflowjs_converter"},
      {"paddle", "write --format onnx, then x2paddle --framework=onnx --model=best.onnx"},
      {"mnn", "write --format onnx, then MNNConvert -f ONNX --modelFile best.onnx --MNNModel best.mnn"},
      {"ncnn", "write --format onnx, then pnnx best.onnx"},
      {"imx", "write --format onnx; Sony's converter takes it from there"},
      {"rknn", "write --format onnx; rknn-toolkit2 loads it (rknn.load_onnx)"},
  };
  return ways;
}

void check_format(const Config& config) {
  std::string format = config.text("format");
  std::transform(format.begin(), format.end(), format.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  if (format == "onnx") return;
  if (format == "tensorrt" || format == "trt") format = "engine";
  if (format == "mlmodel" || format == "mlpackage" || format == "mlprogram" || format == "apple" || format == "ios") format = "coreml";
  const auto way = ways_from_onnx().find(format);
  if (way != ways_from_onnx().end()) {
    throw Error(ErrorCode::kUsage, fmt::format("format={}: only onnx is written here", config.text("format")), {}, way->second);
  }
  throw Error(ErrorCode::kUsage, fmt::format("format={}: there is no such format", config.text("format")), {}, "--format onnx");
}

fs::path output_of(const Config& config) {
  fs::path path = config.text("model");
  if (config.is_set("output")) {
    const fs::path output = config.text("output");
    std::error_code ignored;
    if (output.has_filename() && !fs::is_directory(output, ignored)) return output;
    throw Error(ErrorCode::kUsage, fmt::format("--output {}: this is a folder", output.string()), {},
                fmt::format("name the file: {}", shell_word((output / path.stem()).string() + ".onnx")));
  }
  const std::string extension = path.extension().string();
  if (extension == ".safetensors" || extension == ".pt" || extension == ".pth" || extension == ".yaml") path.replace_extension();
  return path += ".onnx";
}

nlohmann::ordered_json to_json(const OnnxDifference& d) {
  return {{"box_px", d.box_px}, {"score", d.score}, {"coefficients", d.coefficients}, {"prototypes", d.prototypes}};
}

std::string to_text(const OnnxDifference& d) {
  return fmt::format("boxes {:.2g} px, scores {:.2g}, coefficients {:.2g} and prototypes {:.2g} of the largest", d.box_px, d.score, d.coefficients,
                     d.prototypes);
}

}  // namespace

int run_export(const Config& config) {
  const LogStyle log = prepare(config);
  check_format(config);
  if (config.flag("nms")) {
    throw Error(ErrorCode::kUsage, "--nms is not there: suppression is not part of the file", {},
                "predict_seg and val_seg suppress by themselves; elsewhere it belongs behind output0");
  }
  const std::string& source = config.text("model");
  if (source.empty()) throw Error(ErrorCode::kUsage, "--model is missing", {}, "--model runs/segment/train/weights/best.safetensors");
  const fs::path file = output_of(config);
  LoadedModel loaded = load_model(source);
  for (const std::string& w : loaded.warnings) log_line(log, "warning: " + w);
  if (!loaded.pretrained) log_line(log, fmt::format("warning: {} has untrained weights", source));
  OnnxExportOptions o;
  o.batch = config.integer("batch");
  const std::array<int64_t, 2> size = size_of(with_arguments_of_training(loaded, config, log));
  o.height = size[0], o.width = size[1];
  o.opset = config.integer("opset");
  o.half = config.flag("half"), o.dynamic = config.flag("dynamic");
  std::error_code ignored;
  if (fs::exists(unchecked_file(file), ignored)) {
    log_line(log, fmt::format("note: {} of an export that was stopped goes", unchecked_file(file).string()));
  }
  const OnnxReport r = export_onnx(*loaded.model, loaded.names, file, o);
  if (config.flag("json")) {
    nlohmann::ordered_json j = {{"command", "export"}, {"model", source},      {"format", "onnx"},  {"output", file.string()},
                                {"bytes", r.bytes},    {"batch", o.batch},     {"imgsz", {o.height, o.width}}, {"opset", o.opset},
                                {"half", o.half},      {"dynamic", o.dynamic}, {"nc", loaded.model->nc()}};
    j["difference"] = to_json(r.file);
    j["tolerance"] = to_json(kOnnxTolerance);
    if (o.half) j["fp16_difference"] = to_json(r.rounding);
    print_json(j);
    return 0;
  }
  const int64_t channels = 4 + loaded.model->nc() + loaded.model->masks();
  const std::string batch = o.dynamic ? "N" : std::to_string(o.batch), height = o.dynamic ? "H" : std::to_string(o.height),
                    width = o.dynamic ? "W" : std::to_string(o.width);
  fmt::print("{}: {:.1f} MiB, opset {}, {}\n", file.string(), double(r.bytes) / double(1 << 20), o.opset, o.half ? "fp16" : "fp32");
  fmt::print("  images {}x3x{}x{} (RGB, 0 to 1) -> output0 {}x{}xA (cx cy w h, {} scores, {} coefficients), output1 (prototypes)\n", batch, height, width,
             batch, channels, loaded.model->nc(), loaded.model->masks());
  fmt::print("  checked: read back and run, it differs from the model by {}\n", to_text(r.file));
  if (o.half) fmt::print("  fp16 weights cost {}\n", to_text(r.rounding));
  return 0;
}

}  // namespace tessera
