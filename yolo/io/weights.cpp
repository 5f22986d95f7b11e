#include "yolo/io/weights.h"

#include <filesystem>

#include "nn/io/torch_pt.h"
#include "tensor/base/shell_word.h"
#include "yolo/io/ultralytics_names.h"

namespace tessera {

namespace {

// What a weight file says, whatever its form.
struct Weights {
  ModelSpec spec;
  StateDict state;  // our layout
  std::vector<std::string> names;
  CheckpointMeta meta{};
  std::map<std::string, std::string> arguments{};
};

// Channels out of a convolution of the file (file layout); 0 when it is not there.
int64_t channels_of(const StateDict& state, const std::string& name) {
  for (const auto& [entry, tensor] : state) {
    if (canonical_name(entry) == name && tensor.rank() == 4) return tensor.size(0);
  }
  return 0;
}

// The built-in network whose first widths and number of entries a bare state dict has. nc: as stated elsewhere, or 0.
ModelSpec spec_from_shapes(const StateDict& state, int64_t nc, const std::string& file) {
  if (nc <= 0) nc = channels_of(state, "model.22.cv3.0.2.weight");
  for (const char* scale : {"n", "s", "m", "l", "x"}) {
    if (nc <= 0) break;
    ModelSpec spec = parse_model_yaml("yolov8-seg", scale, nc);
    bool fits = true;
    for (int64_t layer : {0, 1, 3}) {  // nc may hide the scale in one of them (spec 1.1)
      fits = fits && channels_of(state, fmt::format("model.{}.conv.weight", layer)) == spec.layers[size_t(layer)].out;
    }
    if (fits) return spec;
  }
  throw Error(ErrorCode::kData, "the weights are of no YOLOv8 segmentation model", {file},
              "give a model file of this program or a YOLOv8-seg .pt of the original");
}

// A description that says the same as the built-in one is the built-in one.
ModelSpec prefer_builtin(ModelSpec spec) {
  if (spec.scale.size() != 1 || std::string_view("nsmlx").find(spec.scale) == std::string_view::npos) return spec;
  ModelSpec builtin = parse_model_yaml("yolov8-seg", spec.scale, spec.nc);
  bool same = builtin.layers.size() == spec.layers.size();
  for (size_t i = 0; same && i < spec.layers.size(); ++i) {
    const LayerSpec &a = spec.layers[i], &b = builtin.layers[i];
    same = a.module == b.module && a.from == b.from && a.arguments == b.arguments;
  }
  return same ? builtin : spec;
}

Weights read_pt(const std::string& path) {
  const std::filesystem::path file_path(path);
  std::error_code ignored;
  if (is_original_weights(file_path.filename().string()) && !std::filesystem::exists(file_path, ignored)) {
    const std::string folder = file_path.has_parent_path() ? " --to " + shell_word(file_path.parent_path().string() + "/") : "";
    throw Error(ErrorCode::kData, "there is no such file", {path},
                fmt::format("tessera download --model {}{} fetches it (AGPL-3.0)", file_path.filename().string(), folder));
  }
  const TorchFile file = read_torch_pt(path, {.to_f32 = true});
  if (!file.head_class.empty() && !file.head_class.ends_with(".Segment")) {
    throw Error(ErrorCode::kData, fmt::format("the model's head is {}, not Segment", file.head_class), {path},
                "only YOLOv8 segmentation models can be read");
  }
  Weights w;
  const int64_t nc = file.nc.value_or(0);
  // JSON is YAML, so the description inside the file reads like a model yaml.
  w.spec = file.yaml.empty() ? spec_from_shapes(file.tensors, nc, path)
                             : prefer_builtin(parse_model_text(file.yaml, path + " (yaml)", file.scale, nc));
  w.state = from_file_layout(file.tensors);
  w.arguments = file.train_args;
  for (int64_t i = 0; i < w.spec.nc; ++i) {
    const auto name = file.names.find(i);
    w.names.push_back(name == file.names.end() ? std::to_string(i) : name->second);
  }
  return w;
}

Weights read_native(const std::string& path) {
  const Checkpoint checkpoint = load_checkpoint(path);
  return {spec_of_checkpoint(checkpoint, path), from_file_layout(checkpoint.model), checkpoint.meta.class_names, checkpoint.meta,
          checkpoint.meta.args};
}

bool holds_weights(const std::string& name) {
  const std::string extension = std::filesystem::path(name).extension().string();
  return extension == ".safetensors" || extension == ".pt" || extension == ".pth";
}

Weights read_weights(const std::string& path) { return path.ends_with(".safetensors") ? read_native(path) : read_pt(path); }

// What fits of a file; the rest of the network is untrained.
void transfer(const StateDict& state, uint64_t seed, LoadedModel& into) {
  into.pretrained = true;
  into.model->init(seed);
  into.report = into.model->load(state);
  for (LoadReport::Mismatch& m : into.report.mismatched) {
    m.in_file = to_file_shape(m.name, m.in_file);
    m.in_model = to_file_shape(m.name, m.in_model);
  }
}

LoadedModel build(Weights weights, const std::string& path, const ModelOptions& options) {
  LoadedModel out;
  out.pretrained = true;
  out.names = weights.names.empty() ? numbered_names(weights.spec.nc) : weights.names;
  out.meta = std::move(weights.meta);
  out.arguments = std::move(weights.arguments);
  if (options.nc <= 0 || options.nc == weights.spec.nc) {
    out.model = std::make_unique<YoloSeg>(weights.spec);
    out.report = load_strict(weights.state, out.model->state_dict(), path);
    return out;
  }
  const ModelSpec& from = weights.spec;
  ModelSpec spec = parse_model_text(from.text, from.name, from.scale, options.nc);
  spec.builtin = from.builtin;
  out.model = std::make_unique<YoloSeg>(std::move(spec));
  transfer(weights.state, options.seed, out);
  out.names = numbered_names(options.nc);
  return out;
}

}  // namespace

bool is_original_weights(std::string_view name) {
  return name.size() == 14 && name.starts_with("yolov8") && name.ends_with("-seg.pt") && std::string_view("nsmlx").find(name[6]) != std::string_view::npos;
}

LoadedModel load_model(const std::string& name_or_path, const ModelOptions& options) {
  const bool whole = holds_weights(name_or_path);
  if (name_or_path.ends_with(".onnx")) {
    throw Error(ErrorCode::kUsage, "an .onnx file is a finished network: val and predict run it, nothing else", {name_or_path},
                "give the .safetensors that it was made of");
  }
  if (!options.from.empty() && !holds_weights(options.from)) {
    throw Error(ErrorCode::kUsage, "this is no file of weights", {options.from},
                "give a .safetensors of a run or a .pt of the original");
  }
  if (!options.from.empty() && whole && options.from != name_or_path) {
    throw Error(ErrorCode::kUsage, fmt::format("{} holds weights too", name_or_path), {options.from},
                "give a scale (yolov8n-seg) or a yaml as the model, or only one of the two files");
  }
  if (whole) return build(read_weights(name_or_path), name_or_path, options);
  LoadedModel out;
  ModelSpec spec = parse_model_yaml(name_or_path, options.scale, options.nc);
  out.warnings = spec.warnings;
  out.model = std::make_unique<YoloSeg>(std::move(spec));
  if (options.from.empty()) {
    out.model->init(options.seed);
  } else {
    transfer(read_weights(options.from).state, options.seed, out);
  }
  out.names = numbered_names(out.model->nc());
  return out;
}

void describe_model(const YoloSeg& model, const std::vector<std::string>& names, CheckpointMeta& meta) {
  TESSERA_CHECK(int64_t(names.size()) == model.nc(), "{} names for {} classes", names.size(), model.nc());
  meta.task = "segment";
  meta.scale = model.spec().scale;
  meta.nc = model.nc();
  meta.class_names = names;
  meta.model_yaml = model.spec().builtin ? "" : model.spec().text;
}

ModelSpec spec_of_checkpoint(const Checkpoint& checkpoint, const std::string& file) {
  const CheckpointMeta& meta = checkpoint.meta;
  if (!meta.task.empty() && meta.task != "segment") {
    throw Error(ErrorCode::kData, fmt::format("holds a model for '{}', not for segmentation", meta.task), {file}, "only YOLOv8 segmentation models can be read");
  }
  if (!meta.model_yaml.empty()) return parse_model_text(meta.model_yaml, file + " (yaml)", meta.scale, meta.nc);
  if (!meta.scale.empty()) {
    try {
      return parse_model_yaml("yolov8-seg", meta.scale, meta.nc);
    } catch (const Error& e) {  // names the yaml, which is not the file at fault
      throw Error(ErrorCode::kData, e.message(), {file}, "the file was changed by another program; get it again");
    }
  }
  return spec_from_shapes(checkpoint.model, meta.nc, file);
}

void save_model(const std::string& path, YoloSeg& model, const std::vector<std::string>& names) {
  Checkpoint checkpoint;
  describe_model(model, names, checkpoint.meta);
  checkpoint.model = to_file_layout(model.state_dict());
  save_checkpoint(path, checkpoint);
}

std::vector<std::string> numbered_names(int64_t nc) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < nc; ++i) names.push_back(std::to_string(i));
  return names;
}

}  // namespace tessera
