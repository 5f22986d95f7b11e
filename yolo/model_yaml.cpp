#include "yolo/model_yaml.h"

#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <regex>

#include "data/yaml_keys.h"
#include "tensor/base/check.h"
#include "tensor/base/file.h"

namespace tessera {

namespace {

constexpr int64_t kMaxLayers = 1000, kMaxChannels = 1 << 16, kMaxRepeats = 100, kMaxClasses = 100000;
constexpr int64_t kMaxParameters = 500'000'000;  // seven times those of yolov8x-seg; more is a slip of the pen
constexpr const char* kForm = "the form is that of the original's yolov8-seg.yaml: nc, scales, backbone, head";

FileLocation place(const std::string& file, const YAML::Mark& mark) {
  return mark.is_null() ? FileLocation{file} : FileLocation{file, mark.line + 1, mark.column + 1};
}

// Reads one yaml into a ModelSpec; holds what every complaint needs.
class Reader {
 public:
  Reader(std::string file, ModelSpec& spec) : file_(std::move(file)), spec_(spec) {}
  void read(const std::string& scale, int64_t nc);

 private:
  using Build = std::function<void(LayerSpec&, const YAML::Node& args)>;

  [[noreturn]] void fail(const YAML::Node& node, const std::string& message, const std::string& hint = kForm) const {
    throw Error(ErrorCode::kData, message, place(file_, node.Mark()), hint);
  }
  YAML::Node load() const;
  void read_scale(const YAML::Node& root, const std::string& scale);
  void read_layer(const YAML::Node& node);
  int64_t whole(const YAML::Node& node, const char* what, int64_t low, int64_t high) const;
  double positive(const YAML::Node& node, const char* what) const;
  bool truth(const YAML::Node& node) const;
  const YAML::Node need(const YAML::Node& args, size_t i, const char* what) const;
  int64_t width(const YAML::Node& args) const;
  int64_t count(const YAML::Node& node, const char* what) const;  // a number or the word nc
  const std::map<std::string, Build>& modules();
  std::string text(const YAML::Node& node, const char* what) const;
  void single_input(const LayerSpec& layer, const YAML::Node& at) const;
  void check_size(const LayerSpec& layer, const YAML::Node& at);

  void conv(LayerSpec& layer, const YAML::Node& args);
  void c2f(LayerSpec& layer, const YAML::Node& args);
  void sppf(LayerSpec& layer, const YAML::Node& args);
  void upsample(LayerSpec& layer, const YAML::Node& args);
  void concat(LayerSpec& layer, const YAML::Node& args);
  void segment(LayerSpec& layer, const YAML::Node& args);

  std::string file_;
  ModelSpec& spec_;
  std::map<std::string, Build> modules_;
  double parameters_ = 0;  // of the layers so far, biases and norms left out
};

YAML::Node Reader::load() const {
  try {
    return YAML::Load(spec_.text);
  } catch (const YAML::Exception& e) {
    throw Error(ErrorCode::kData, "not YAML: " + e.msg, place(file_, e.mark),
                "give a model yaml, a .safetensors or a .pt of the original");
  }
}

std::string Reader::text(const YAML::Node& node, const char* what) const {
  if (!node.IsScalar()) fail(node, fmt::format("{} must be plain text", what));
  return node.Scalar();
}

int64_t Reader::whole(const YAML::Node& node, const char* what, int64_t low, int64_t high) const {
  int64_t value = 0;
  if (!node.IsScalar() || !YAML::convert<int64_t>::decode(node, value)) fail(node, fmt::format("{} must be a whole number", what));
  if (value < low || value > high) fail(node, fmt::format("{} is {}, allowed are {} to {}", what, value, low, high));
  return value;
}

double Reader::positive(const YAML::Node& node, const char* what) const {
  double value = 0;
  if (!node.IsScalar() || !YAML::convert<double>::decode(node, value) || !(value > 0 && value <= 100)) {
    fail(node, fmt::format("{} must be a number above 0 and at most 100", what));
  }
  return value;
}

bool Reader::truth(const YAML::Node& node) const {
  bool value = false;
  if (!node.IsScalar() || !YAML::convert<bool>::decode(node, value)) fail(node, "shortcut must be True or False");
  return value;
}

const YAML::Node Reader::need(const YAML::Node& args, size_t i, const char* what) const {
  if (i >= args.size()) fail(args, fmt::format("argument {} ({}) is missing", i + 1, what));
  return args[i];
}

int64_t Reader::width(const YAML::Node& args) const {
  const int64_t base = count(need(args, 0, "channels"), "channels");
  return scaled_channels(base, spec_.width, spec_.max_channels, spec_.nc);
}

int64_t Reader::count(const YAML::Node& node, const char* what) const {
  if (node.IsScalar() && node.Scalar() == "nc") return spec_.nc;
  return whole(node, what, 1, kMaxChannels);
}

void Reader::read(const std::string& scale, int64_t nc) {
  const YAML::Node root = load();
  if (!root.IsMap()) throw Error(ErrorCode::kData, "a model yaml is a map with the keys nc, scales, backbone and head", {file_, 1}, kForm);
  check_unique_keys(root, file_);
  for (const char* key : {"backbone", "head"}) {
    if (!root[key] || !root[key].IsSequence()) fail(root, fmt::format("'{}' must be a list of layers", key));
  }
  if (nc > kMaxClasses) throw Error(ErrorCode::kUsage, fmt::format("{} classes, at most {} are possible", nc, kMaxClasses), {file_}, kForm);
  if (nc <= 0 && !root["nc"]) fail(root, "'nc', the number of classes, is missing");
  spec_.nc = nc > 0 ? nc : whole(root["nc"], "nc", 1, kMaxClasses);
  read_scale(root, scale);
  for (const char* key : {"backbone", "head"}) {
    for (const YAML::Node& layer : root[key]) read_layer(layer);
  }
  if (spec_.layers.empty() || spec_.layers.back().module != "Segment") fail(root["head"], "the last layer must be Segment");
}

void Reader::read_scale(const YAML::Node& root, const std::string& scale) {
  const YAML::Node scales = root["scales"];
  if (!scales || scales.IsNull()) {  // the older form: one file for each size
    if (!scale.empty()) spec_.warnings.push_back(fmt::format("{} has no scales: '{}' is not used", file_, scale));
    if (root["depth_multiple"]) spec_.depth = positive(root["depth_multiple"], "depth_multiple");
    if (root["width_multiple"]) spec_.width = positive(root["width_multiple"], "width_multiple");
    return;
  }
  if (!scales.IsMap() || scales.size() == 0) fail(scales, "'scales' must map letters to [depth, width, max_channels]");
  std::string known;
  for (const auto& entry : scales) known += (known.empty() ? "" : ", ") + text(entry.first, "a scale's letter");
  spec_.scale = scale;
  if (scale.empty()) {
    spec_.scale = text(scales.begin()->first, "a scale's letter");
    spec_.warnings.push_back(fmt::format("{} names no scale: '{}' is used (known: {})", file_, spec_.scale, known));
  }
  const YAML::Node row = scales[spec_.scale];
  if (!row) throw Error(ErrorCode::kUsage, fmt::format("there is no scale '{}'", spec_.scale), {file_}, "known scales: " + known);
  if (!row.IsSequence() || row.size() != 3) fail(row, "a scale is [depth, width, max_channels]");
  spec_.depth = positive(row[0], "depth");
  spec_.width = positive(row[1], "width");
  spec_.max_channels = whole(row[2], "max_channels", 8, kMaxChannels);
}

const std::map<std::string, Reader::Build>& Reader::modules() {
  if (modules_.empty()) {
    const auto rule = [this](void (Reader::*build)(LayerSpec&, const YAML::Node&)) {
      return [this, build](LayerSpec& layer, const YAML::Node& args) { (this->*build)(layer, args); };
    };
    modules_ = {{"Conv", rule(&Reader::conv)},         {"C2f", rule(&Reader::c2f)},       {"SPPF", rule(&Reader::sppf)},
                {"Upsample", rule(&Reader::upsample)}, {"Concat", rule(&Reader::concat)}, {"Segment", rule(&Reader::segment)}};
  }
  return modules_;
}

// [from, repeats, module, arguments]
void Reader::read_layer(const YAML::Node& node) {
  if (!node.IsSequence() || node.size() != 4 || !node[2].IsScalar() || !node[3].IsSequence()) {
    fail(node, "a layer is [from, repeats, module, [arguments]]");
  }
  LayerSpec layer;
  layer.index = int64_t(spec_.layers.size());
  if (layer.index >= kMaxLayers) fail(node, fmt::format("more than {} layers", kMaxLayers));
  if (layer.index > 0 && spec_.layers.back().module == "Segment") fail(node, "nothing may follow Segment");
  std::vector<int64_t> reductions;  // of the inputs
  const auto input = [&](const YAML::Node& n) {
    const int64_t from = whole(n, "from", -layer.index - 1, layer.index - 1);
    const int64_t absolute = from < 0 ? layer.index + from : from;
    layer.from.push_back(absolute);
    layer.in.push_back(absolute < 0 ? 3 : spec_.layers[size_t(absolute)].out);
    const int64_t reduction = absolute < 0 ? 1 : spec_.layers[size_t(absolute)].reduction;
    if (layer.from.size() == 1) layer.reduction = reduction;
    reductions.push_back(reduction);
  };
  if (node[0].IsSequence()) {
    for (const YAML::Node& n : node[0]) input(n);
  } else {
    input(node[0]);
  }
  if (layer.from.empty()) fail(node[0], "a layer needs an input");
  layer.repeats = scaled_repeats(whole(node[1], "repeats", 1, kMaxRepeats), spec_.depth);
  layer.module = node[2].Scalar();
  if (layer.module.starts_with("nn.")) layer.module.erase(0, 3);
  const auto rule = modules().find(layer.module);
  if (rule == modules().end()) {
    std::string known;
    for (const auto& [name, build] : modules()) known += (known.empty() ? "" : ", ") + name;
    fail(node[2], fmt::format("unknown module '{}'", node[2].Scalar()), "known modules: " + known);
  }
  if (layer.repeats != 1 && layer.module != "C2f") fail(node[1], fmt::format("{} cannot be repeated", layer.module));
  if (layer.repeats > kMaxRepeats) fail(node[1], fmt::format("{} repeats, at most {} are possible", layer.repeats, kMaxRepeats));
  rule->second(layer, node[3]);
  const bool same = std::all_of(reductions.begin(), reductions.end(), [&](int64_t r) { return r == reductions[0]; });
  if (layer.module == "Concat" && !same) {
    fail(node[0], fmt::format("Concat joins maps of the same size; these are 1/{} of the image", fmt::join(reductions, ", 1/")));
  }
  if (layer.module == "Segment" && !std::is_sorted(reductions.begin(), reductions.end())) {
    fail(node[0], fmt::format("Segment takes its feature maps finest first; these are 1/{} of the image", fmt::join(reductions, ", 1/")));
  }
  check_size(layer, node);
  spec_.layers.push_back(std::move(layer));
}

void Reader::check_size(const LayerSpec& layer, const YAML::Node& at) {
  if (kMaxReduction % layer.reduction != 0) {
    fail(at, fmt::format("this map would be 1/{} of the image", layer.reduction),
         fmt::format("strides of 2 up to 1/{} are possible, as image sizes are multiples of it", kMaxReduction));
  }
  const double in = double(layer.in[0]), out = double(layer.out), kernel = double(layer.kernel);
  if (layer.module == "Conv") parameters_ += in * out * kernel * kernel;
  if (layer.module == "SPPF") parameters_ += in * in / 2 + 2 * in * out;
  if (layer.module == "C2f") parameters_ += in * out + out * out * (1 + double(layer.repeats) * 5);
  if (layer.module == "Segment") {
    const double first = in, hidden = double(layer.prototype_width), classes = std::max(first, std::min(double(layer.nc), 100.0)),
                 masks = std::max(first / 4, double(layer.masks));
    parameters_ += 9 * first * hidden + 13 * hidden * hidden + hidden * double(layer.masks);
    for (const int64_t channels : layer.in) {
      parameters_ += 9 * (double(channels) * (classes + masks) + classes * classes + masks * masks) + classes * double(layer.nc);
    }
  }
  if (parameters_ > double(kMaxParameters)) {
    fail(at, fmt::format("with this layer the network has more than {} parameters", kMaxParameters),
         "lower the channels, the repeats or the width of the scale; yolov8x-seg has 72 million");
  }
}

void Reader::single_input(const LayerSpec& layer, const YAML::Node& at) const {
  if (layer.from.size() != 1) fail(at, fmt::format("{} has one input, got {}", layer.module, layer.from.size()));
}

// [channels, kernel = 1, stride = 1]
void Reader::conv(LayerSpec& layer, const YAML::Node& args) {
  single_input(layer, args);
  layer.out = width(args);
  if (args.size() > 1) layer.kernel = whole(args[1], "kernel", 1, 15);
  if (args.size() > 2) layer.stride = whole(args[2], "stride", 1, 8);
  if (args.size() > 3) fail(args[3], "Conv takes channels, kernel and stride");
  if (layer.kernel % 2 == 0) fail(args[1], "the kernel of Conv must be odd");
  layer.reduction *= layer.stride;
  layer.arguments = fmt::format("[{}, {}, {}, {}]", layer.in[0], layer.out, layer.kernel, layer.stride);
}

// [channels, shortcut = False]
void Reader::c2f(LayerSpec& layer, const YAML::Node& args) {
  single_input(layer, args);
  layer.out = width(args);
  if (args.size() > 1) layer.shortcut = truth(args[1]);
  if (args.size() > 2) fail(args[2], "C2f takes channels and shortcut");
  layer.arguments = fmt::format("[{}, {}, {}{}]", layer.in[0], layer.out, layer.repeats, layer.shortcut ? ", True" : "");
}

// [channels, kernel = 5]
void Reader::sppf(LayerSpec& layer, const YAML::Node& args) {
  single_input(layer, args);
  layer.out = width(args);
  layer.kernel = args.size() > 1 ? whole(args[1], "kernel", 1, 15) : 5;
  if (layer.kernel % 2 == 0) fail(args[1], "the kernel of SPPF must be odd");
  layer.arguments = fmt::format("[{}, {}, {}]", layer.in[0], layer.out, layer.kernel);
}

// [None, 2, "nearest"]
void Reader::upsample(LayerSpec& layer, const YAML::Node& args) {
  single_input(layer, args);
  if (args.size() != 3 || !args[2].IsScalar() || args[2].Scalar() != "nearest" || whole(args[1], "factor", 1, 16) != 2) {
    fail(args, "Upsample takes [None, 2, \"nearest\"]: only doubling with nearest neighbours is there");
  }
  if (layer.reduction % 2 != 0) fail(args, "Upsample would make a map larger than the image");
  layer.reduction /= 2;
  layer.out = layer.in[0];
  layer.arguments = "[None, 2, 'nearest']";
}

// [1]: along the channels
void Reader::concat(LayerSpec& layer, const YAML::Node& args) {
  if (args.size() != 1 || whole(args[0], "axis", -4, 4) != 1) fail(args, "Concat takes [1]: the channel axis");
  for (int64_t channels : layer.in) layer.out += channels;
  layer.arguments = "[1]";
}

// [nc, masks, prototype width]
void Reader::segment(LayerSpec& layer, const YAML::Node& args) {
  if (layer.from.size() != 3) fail(args, fmt::format("Segment takes 3 feature maps, got {}", layer.from.size()));
  layer.nc = count(need(args, 0, "nc"), "nc");
  if (layer.nc != spec_.nc) fail(args[0], fmt::format("Segment has {} classes, the model {}", layer.nc, spec_.nc), "write nc");
  layer.masks = args.size() > 1 ? whole(args[1], "masks", 1, 1024) : 32;
  const int64_t base = args.size() > 2 ? whole(args[2], "prototype width", 1, kMaxChannels) : 256;
  layer.prototype_width = scaled_channels(base, spec_.width, spec_.max_channels, 0);
  layer.arguments = fmt::format("[{}, {}, {}, [{}, {}, {}]]", layer.nc, layer.masks, layer.prototype_width, layer.in[0],
                                layer.in[1], layer.in[2]);
}

// "yolov8s-seg" -> "s"; empty without a letter.
std::string scale_of_name(const std::string& stem) {
  std::smatch match;
  static const std::regex pattern("yolov?[0-9]+([nsmlx])");
  return std::regex_search(stem, match, pattern) ? match[1].str() : std::string{};
}

const std::regex& builtin_pattern() {
  static const std::regex pattern("yolov8([nsmlx]?)-seg(\\.ya?ml)?");
  return pattern;
}

}  // namespace

int64_t scaled_channels(int64_t base, double width, int64_t max_channels, int64_t nc) {
  if (base == nc) return base;
  const int64_t capped = max_channels > 0 ? std::min(base, max_channels) : base;
  return int64_t(std::ceil(double(capped) * width / 8)) * 8;
}

int64_t scaled_repeats(int64_t n, double depth) {
  return n > 1 ? std::max(int64_t(std::nearbyint(double(n) * depth)), int64_t{1}) : n;
}

bool is_builtin_model(std::string_view name) { return std::regex_match(std::string(name), builtin_pattern()); }

ModelSpec parse_model_text(const std::string& text, const std::string& name, const std::string& scale, int64_t nc) {
  ModelSpec spec;
  spec.text = text;
  spec.name = std::filesystem::path(name).stem().string();
  Reader(name, spec).read(scale.empty() ? scale_of_name(spec.name) : scale, nc);
  if (is_builtin_model(spec.name) && !spec.scale.empty()) spec.name = fmt::format("yolov8{}-seg", spec.scale);
  return spec;
}

ModelSpec parse_model_yaml(const std::string& name_or_path, const std::string& scale, int64_t nc) {
  namespace fs = std::filesystem;
  const fs::path path(name_or_path);
  if (fs::is_regular_file(path)) return parse_model_text(read_file(path, size_t{1} << 20), name_or_path, scale, nc);
  // dir/yolov8s-seg.yaml: scale s of dir/yolov8-seg.yaml
  const std::string letter = scale_of_name(path.stem().string());
  if (!letter.empty() && path.has_extension()) {
    const fs::path common =
        path.parent_path() / std::regex_replace(path.filename().string(), std::regex("(yolov?[0-9]+)[nsmlx]"), "$1");
    if (fs::is_regular_file(common)) {
      return parse_model_text(read_file(common, size_t{1} << 20), common.string(), scale.empty() ? letter : scale, nc);
    }
  }
  if (!is_builtin_model(name_or_path)) {
    throw Error(ErrorCode::kUsage, fmt::format("there is no model '{}'", name_or_path), {},
                "give yolov8n-seg, yolov8s-seg, yolov8m-seg, yolov8l-seg, yolov8x-seg or the path of a model yaml");
  }
  ModelSpec spec = parse_model_text(std::string(builtin_model_yaml()), "yolov8-seg.yaml", scale.empty() ? letter : scale, nc);
  spec.builtin = true;
  return spec;
}

}  // namespace tessera
