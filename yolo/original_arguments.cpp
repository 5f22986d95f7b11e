#include "yolo/original_arguments.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "yolo/options.h"

namespace tessera {

namespace {

constexpr OriginalArgument kArguments[] = {
    {"task", "detect|segment", "segment", kAllVerbs, "this program is for segmentation: remove it, or write task: segment", ""},
    {"mode", "train", "", 0, "the program's name or its first word says it: train_seg, tessera val", ""},
    {"model", "", "", 0, "", ""},
    {"data", "", "", 0, "", ""},
    {"epochs", "100", "", 0, "", ""},
    {"time", "", "", 0, "", ""},
    {"patience", "100", "", 0, "", ""},
    {"batch", "16", "", 0, "", ""},
    {"imgsz", "640", "", 0, "", ""},
    {"save", "true", "", 0, "", ""},
    {"save_period", "-1", "", 0, "", ""},
    {"cache", "false", "", 0, "", ""},
    {"device", "", "", 0, "", ""},
    {"workers", "8", "", 0, "", ""},
    {"project", "", "", 0, "", ""},
    {"name", "", "", 0, "", ""},
    {"save_dir", "*", "", 0, "--project and --name give the run folder", ""},
    {"exist_ok", "false", "", 0, "", ""},
    {"pretrained", "true", "", 0, "", ""},
    {"optimizer", "auto", "", 0, "", ""},
    {"verbose", "true", "true", 0, "--quiet leaves progress out", ""},
    {"seed", "0", "", 0, "", ""},
    {"deterministic", "true", "true", 0, "runs repeat their bits in any case; of cuDNN's plans with TESSERA_DETERMINISTIC=1", ""},
    {"single_cls", "false", "", 0, "", ""},
    {"rect", "false", "", 0, "", ""},
    {"cos_lr", "false", "", 0, "", ""},
    {"close_mosaic", "10", "", 0, "", ""},
    {"resume", "false", "", 0, "", ""},
    {"amp", "true|false", "", 0, "use --precision bf16 or fp16 (on a GPU) for mixed precision, fp32 (the default) for amp=False",
     ""},
    {"fraction", "1.0", "", 0, "", ""},
    {"profile", "false", "", 0, "", ""},
    {"freeze", "", "", 0, "", ""},
    {"multi_scale", "false|0.0", "false|0.0", 0, "", ""},
    {"overlap_mask", "true", "", 0, "", ""},
    {"mask_ratio", "4", "", 0, "", ""},
    {"dropout", "0.0", "0.0", 0, "of classification", ""},
    {"val", "true", "", 0, "", ""},
    {"split", "val", "", 0, "", ""},
    {"save_json", "false", "", 0, "", ""},
    {"conf", "", "", 0, "", ""},
    {"iou", "0.7", "", 0, "", ""},
    {"max_det", "300", "", 0, "", ""},
    {"half", "false", "false", kVal | kPredict, "use --precision bf16, or fp16 on a GPU", ""},
    {"dnn", "false", "false", kVal | kPredict, ".onnx files run by kernels of this program: remove it", ""},
    {"plots", "true", "", 0, "", ""},
    {"source", "", "", 0, "", ""},
    {"vid_stride", "1", "1", 0, "videos are not read: predict takes images, folders and globs", ""},
    {"stream_buffer", "false", "false", 0, "streams are not read: predict takes images, folders and globs", ""},
    {"visualize", "false", "false", kPredict, "maps of features are not drawn: remove it", ""},
    {"augment", "false", "false", kVal | kPredict,
     "there is no test-time augmentation (for segmentation the original has none either): remove it", ""},
    {"agnostic_nms", "false", "", 0, "", ""},
    {"classes", "", "", 0, "", ""},
    {"retina_masks", "false", "", 0, "", ""},
    {"embed", "", "", kPredict, "embeddings are not given: remove it", ""},
    {"show", "false", "false", kPredict, "images are written, not shown: --save", ""},
    {"save_frames", "false", "false", 0, "videos are not read: predict takes images, folders and globs", ""},
    {"save_txt", "false", "", 0, "", ""},
    {"save_conf", "false", "", 0, "", ""},
    {"save_crop", "false", "", 0, "", ""},
    {"show_labels", "true", "", 0, "", ""},
    {"show_conf", "true", "", 0, "", ""},
    {"show_boxes", "true", "", 0, "", ""},
    {"line_width", "", "", 0, "", ""},
    {"format", "torchscript", "", 0, "", ""},
    {"keras", "false", "false", kExport, "export writes ONNX, from which other tools make their formats: remove it", ""},
    {"optimize", "false", "false", kExport, "export writes ONNX, from which other tools make their formats: remove it", ""},
    {"int8", "false", "false", kExport, "weights are not rounded to 8 bits: export ONNX and let the tool that runs it do that", ""},
    {"dynamic", "false", "false", 0, "", ""},
    {"simplify", "true", "true", 0, "", ""},
    {"opset", "", "", 0, "", ""},
    {"workspace", "|4", "", 0, "of TensorRT, which is given it when it reads the ONNX file", ""},
    {"nms", "false", "false", 0, "", ""},
    {"lr0", "0.01", "", 0, "", ""},
    {"lrf", "0.01", "", 0, "", ""},
    {"momentum", "0.937", "", 0, "", ""},
    {"weight_decay", "0.0005", "", 0, "", ""},
    {"warmup_epochs", "3.0", "", 0, "", ""},
    {"warmup_momentum", "0.8", "", 0, "", ""},
    {"warmup_bias_lr", "0.1", "", 0, "", ""},
    {"box", "7.5", "", 0, "", ""},
    {"cls", "0.5", "", 0, "", ""},
    {"dfl", "1.5", "", 0, "", ""},
    {"pose", "12.0", "12.0", 0, "of pose estimation", ""},
    {"kobj", "1.0", "1.0", 0, "of pose estimation", ""},
    {"nbs", "64", "", 0, "", ""},
    {"hsv_h", "0.015", "", 0, "", ""},
    {"hsv_s", "0.7", "", 0, "", ""},
    {"hsv_v", "0.4", "", 0, "", ""},
    {"degrees", "0.0", "", 0, "", ""},
    {"translate", "0.1", "", 0, "", ""},
    {"scale", "0.5", "", 0, "", ""},
    {"shear", "0.0", "", 0, "", ""},
    {"perspective", "0.0", "", 0, "", ""},
    {"flipud", "0.0", "", 0, "", ""},
    {"fliplr", "0.5", "", 0, "", ""},
    {"bgr", "0.0", "", 0, "", ""},
    {"mosaic", "1.0", "", 0, "", ""},
    {"mixup", "0.0", "", 0, "", ""},
    {"cutmix", "0.0", "", 0, "", ""},
    {"copy_paste", "0.0", "", 0, "", ""},
    {"copy_paste_mode", "flip", "", 0, "", ""},
    {"auto_augment", "randaugment", "randaugment", 0, "of classification", ""},
    {"erasing", "0.4", "0.4", 0, "of classification", ""},
    {"cfg", "", "", 0, "", ""},
    {"tracker", "botsort.yaml", "", 0, "of tracking", ""},
    // Gone, or under another name, in 8.3.159, which takes them with a warning.
    {"label_smoothing", "0.0", "0.0", 0, "without effect in the original too", ""},
    {"save_hybrid", "false", "false", 0, "gone from the original too", ""},
    {"crop_fraction", "1.0", "1.0", 0, "of classification", ""},
    {"boxes", "true", "true", 0, "its name is show_boxes", "show_boxes"},
    {"hide_labels", "false", "false", 0, "its name is show_labels", "show_labels"},
    {"hide_conf", "false", "false", 0, "its name is show_conf", "show_conf"},
    {"line_thickness", "", "", 0, "its name is line_width", "line_width"},
    // Of later versions.
    {"compile", "false", "false", 0, "of PyTorch", ""},
    {"end2end", "|false", "false", 0, "of other networks", ""},
    {"rle", "1.0", "1.0", 0, "of pose estimation", ""},
    {"angle", "1.0", "1.0", 0, "of rotated boxes", ""},
};

std::optional<double> number_of(std::string_view text) {
  double x = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), x);
  if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return x;
}

bool same_value(std::string_view a, std::string_view b) {
  if (const auto x = number_of(a), y = number_of(b); x && y) return *x == *y;
  if (const auto x = boolean_of(a), y = boolean_of(b); x && y) return *x == *y;
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char p, unsigned char q) { return std::tolower(p) == std::tolower(q); });
}

}  // namespace

std::span<const OriginalArgument> original_arguments() { return kArguments; }

const OriginalArgument* find_original(std::string_view name) {
  const auto it =
      std::find_if(std::begin(kArguments), std::end(kArguments), [&](const OriginalArgument& a) { return a.name == name; });
  return it == std::end(kArguments) ? nullptr : it;
}

bool is_one_of_values(std::string_view value, std::string_view values) {
  if (values == "*") return true;
  for (;;) {
    const size_t bar = values.find('|');
    if (same_value(value, values.substr(0, bar))) return true;
    if (bar == std::string_view::npos) return false;
    values.remove_prefix(bar + 1);
  }
}

RenamedArgument renamed(const OriginalArgument& argument, std::string_view value) {
  const std::optional<bool> flag = argument.name.starts_with("hide_") ? boolean_of(value) : std::nullopt;
  return {std::string(argument.now), flag ? *flag ? "false" : "true" : std::string(value)};
}

}  // namespace tessera
