// The description of a network as a list of layers, read from a model yaml in the form of the original (nc, scales, backbone,
// head), with widths and repeats resolved for one scale and class count.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

constexpr int64_t kMaxReduction = 32;  // image sizes are multiples of it

struct LayerSpec {
  int64_t index = 0;
  std::vector<int64_t> from;                       // absolute indices of the inputs; -1: the image
  std::vector<int64_t> in;                         // channels of each input
  int64_t repeats = 1;                             // bottlenecks of a C2f, else 1
  std::string module;                              // "Conv", "C2f", "SPPF", "Upsample", "Concat", "Segment"
  int64_t out = 0;                                 // channels; of Segment: 0
  int64_t kernel = 1, stride = 1;                  // Conv, SPPF
  int64_t reduction = 1;                           // pixels of the image for each cell of the map, along a side
  bool shortcut = false;                           // C2f
  int64_t nc = 0, masks = 0, prototype_width = 0;  // Segment
  std::string arguments;                           // resolved, as the original prints them: "[3, 16, 3, 2]"
};

struct ModelSpec {
  std::string name;      // "yolov8n-seg"
  std::string text;      // the yaml it came from
  bool builtin = false;  // the text ships inside the program
  std::string scale;     // "n"; empty when the yaml has no scales
  double depth = 1, width = 1;
  int64_t max_channels = 0;  // 0: no limit
  int64_t nc = 0;
  std::vector<LayerSpec> layers;  // the last one is Segment
  std::vector<std::string> warnings;
};

// Reads a model: "yolov8n-seg" or "yolov8n-seg.yaml" (ships inside the program unless such a file exists), or the path of a yaml.
// As in the original, the path "dir/yolov8s-seg.yaml" also means scale s of "dir/yolov8-seg.yaml" (spec 1.1). `scale` overrides the
// letter of the name; without either the first scale is used, with a warning. nc > 0 overrides the yaml's. Error(kUsage): no such
// model or scale. Error(kData) with file, line and column: not YAML, unknown module, wrong argument, maps that do not fit each other
// or reduce the image by anything but a power of two up to kMaxReduction, half a billion parameters.
ModelSpec parse_model_yaml(const std::string& name_or_path, const std::string& scale = {}, int64_t nc = 0);
// The same from text; `name` stands for the file in messages.
ModelSpec parse_model_text(const std::string& text, const std::string& name, const std::string& scale, int64_t nc);

// True for "yolov8-seg" with or without a scale letter and ".yaml": parse_model_yaml takes it without a file.
bool is_builtin_model(std::string_view name);
std::string_view builtin_model_yaml();

// Channels of a layer whose yaml says `base`: ceil(min(base, max_channels) * width / 8) * 8, except that a base equal to nc stays
// as it is (spec 1.1, a quirk of the original that changes the network for 64, 128, 256, 512 and 1024 classes).
int64_t scaled_channels(int64_t base, double width, int64_t max_channels, int64_t nc);
// max(round(n * depth), 1) for n > 1, ties to even (spec 1.1).
int64_t scaled_repeats(int64_t n, double depth);

}  // namespace tessera
