#include "yolo/io/onnx_export.h"

#include <chrono>
#include <cmath>
#include <ctime>

#include "yolo/blocks/c2f.h"
#include "yolo/blocks/sppf.h"

namespace tessera {

namespace {

using Names = std::vector<std::string>;
using Ints = std::vector<int64_t>;

int64_t ir_version_of(int64_t opset) { return opset <= 14 ? 7 : opset <= 18 ? 8 : opset <= 20 ? 9 : 10; }

// Adds nodes and constants; a value has the name of the node that makes it.
class Builder {
 public:
  explicit Builder(OnnxGraph& graph, bool half) : graph_(graph), type_(half ? DType::kF16 : DType::kF32) {}

  DType type() const { return type_; }

  std::string add(std::string_view op, const std::string& name, Names inputs, std::vector<OnnxAttribute> attributes = {}) {
    graph_.nodes.push_back({std::string(op), name, std::move(inputs), {name}, std::move(attributes)});
    return name;
  }
  // Two results, "name.0" and "name.1".
  Names split(const std::string& name, const std::string& x, const std::string& sizes, int64_t axis) {
    const Names parts = {name + ".0", name + ".1"};
    graph_.nodes.push_back({"Split", name, {x, sizes}, parts, {{"axis", axis}}});
    return parts;
  }
  std::string rename_last(const std::string& output) {
    graph_.nodes.back().outputs = {output};
    return output;
  }

  // A constant of the network's type, or of integers.
  std::string numbers(const std::string& name, const Tensor& values) { return constant(name, values.to(type_)); }
  std::string ints(const std::string& name, const Ints& values) {
    return constant(name, Tensor::from_vector(values, {int64_t(values.size())}));
  }
  std::string constant(const std::string& name, Tensor values) {
    for (const auto& [known, tensor] : graph_.constants) {
      if (known == name) return name;
    }
    graph_.constants.emplace_back(name, std::move(values));
    return name;
  }

 private:
  OnnxGraph& graph_;
  DType type_;
};

Tensor filter_of(const Tensor& ohwi) { return ohwi.permute({0, 3, 1, 2}).contiguous(); }

// --- the blocks -----------------------------------------------------------------------------------------------------------------

std::string convolution(Builder& b, const std::string& node, const std::string& names, const std::string& x, const Tensor& weight,
                        const Tensor& bias, const ConvParams& p) {
  const int64_t k = weight.size(1);
  return b.add("Conv", node, {x, b.numbers(names + ".weight", filter_of(weight)), b.numbers(names + ".bias", bias)},
               {{"dilations", Ints{1, 1}}, {"group", int64_t(1)}, {"kernel_shape", Ints{k, k}},
                {"pads", Ints{p.pad, p.pad, p.pad, p.pad}}, {"strides", Ints{p.stride, p.stride}}});
}

std::string add_block(Builder& b, const std::string& name, const ConvBnAct& block, const std::string& x) {
  const auto [weight, bias] = block.folded_weights();
  const std::string y = convolution(b, name + "/conv", name + ".conv", x, weight, bias, block.conv.params);
  return b.add("Mul", name + "/mul", {y, b.add("Sigmoid", name + "/sigmoid", {y})});
}

std::string add_block(Builder& b, const std::string& name, const Conv2d& conv, const std::string& x) {
  const auto on_host = [](const Variable& v) { return v.data().to(Device::cpu()); };
  return convolution(b, name + "/conv", name, x, on_host(conv.weight), on_host(conv.bias), conv.params);
}

std::string add_block(Builder& b, const std::string& name, const ConvTranspose2d& up, const std::string& x) {
  // (O, 2, 2, I) to (I, O, 2, 2).
  const Tensor weight = up.weight.data().to(Device::cpu()).permute({3, 0, 1, 2}).contiguous();
  return b.add("ConvTranspose", name + "/conv_transpose",
               {x, b.numbers(name + ".weight", weight), b.numbers(name + ".bias", up.bias.data().to(Device::cpu()))},
               {{"dilations", Ints{1, 1}}, {"group", int64_t(1)}, {"kernel_shape", Ints{2, 2}}, {"pads", Ints{0, 0, 0, 0}},
                {"strides", Ints{2, 2}}});
}

std::string add_block(Builder& b, const std::string& name, const Bottleneck& block, const std::string& x) {
  const std::string y = add_block(b, name + ".cv2", block.cv2, add_block(b, name + ".cv1", block.cv1, x));
  return block.shortcut() ? b.add("Add", name + "/add", {x, y}) : y;
}

std::string add_block(Builder& b, const std::string& name, const C2f& block, const std::string& x) {
  const std::string both = add_block(b, name + ".cv1", block.cv1, x);
  const int64_t hidden = block.cv1.conv.weight.shape()[0] / 2;
  Names parts = b.split(name + "/split", both, b.ints(name + "/split_sizes", {hidden, hidden}), 1);
  for (size_t k = 0; k < block.m.size(); ++k) parts.push_back(add_block(b, fmt::format("{}.m.{}", name, k), *block.m[k], parts.back()));
  return add_block(b, name + ".cv2", block.cv2, b.add("Concat", name + "/concat", parts, {{"axis", int64_t(1)}}));
}

std::string add_block(Builder& b, const std::string& name, const Sppf& block, const std::string& x) {
  Names parts = {add_block(b, name + ".cv1", block.cv1, x)};
  const int64_t k = block.kernel(), pad = k / 2;
  for (int64_t i = 0; i < Sppf::kPools; ++i) {
    parts.push_back(b.add("MaxPool", fmt::format("{}/max_pool.{}", name, i), {parts.back()},
                          {{"ceil_mode", int64_t(0)}, {"kernel_shape", Ints{k, k}}, {"pads", Ints{pad, pad, pad, pad}}, {"strides", Ints{1, 1}}}));
  }
  return add_block(b, name + ".cv2", block.cv2, b.add("Concat", name + "/concat", parts, {{"axis", int64_t(1)}}));
}

std::string add_upsample(Builder& b, const std::string& name, const std::string& x) {
  const std::string scales = b.constant("upsample_scales", Tensor::from_floats({1, 1, 2, 2}, {4}));  // f32 whatever the network's type
  return b.add("Resize", name + "/resize", {x, "", scales},
               {{"coordinate_transformation_mode", std::string("asymmetric")}, {"mode", std::string("nearest")},
                {"nearest_mode", std::string("floor")}});
}

std::string add_block(Builder& b, const std::string& name, const HeadBranch& branch, const std::string& x) {
  return add_block(b, name + ".2", branch.predict, add_block(b, name + ".1", branch.conv1, add_block(b, name + ".0", branch.conv0, x)));
}

std::string add_block(Builder& b, const std::string& name, const Proto& proto, const std::string& x) {
  const std::string up = add_block(b, name + ".upsample", proto.upsample, add_block(b, name + ".cv1", proto.cv1, x));
  return add_block(b, name + ".cv3", proto.cv3, add_block(b, name + ".cv2", proto.cv2, up));
}

// --- the head -------------------------------------------------------------------------------------------------------------------

// Centres of the anchors in cells, (1, 2, A), and pixels for each cell, (1, 1, A).
struct Anchors {
  std::string points, strides;
};

Anchors known_anchors(Builder& b, const std::string& name, const YoloSeg& model, const OnnxExportOptions& o) {
  std::vector<float> x, y, pixels;
  for (const int64_t stride : model.strides()) {
    for (int64_t row = 0; row < o.height / stride; ++row) {
      for (int64_t column = 0; column < o.width / stride; ++column) {
        x.push_back(float(column) + 0.5f), y.push_back(float(row) + 0.5f), pixels.push_back(float(stride));
      }
    }
  }
  const int64_t anchors = int64_t(x.size());
  x.insert(x.end(), y.begin(), y.end());
  return {b.numbers(name + "/anchors", Tensor::from_vector(x, {1, 2, anchors})),
          b.numbers(name + "/strides", Tensor::from_vector(pixels, {1, 1, anchors}))};
}

// The same of a map whose size is known when the graph runs.
Anchors anchors_of_map(Builder& b, const std::string& name, const std::string& map, int64_t stride) {
  const auto scalar = [&](const std::string& what, int64_t v) { return b.constant("int." + what, Tensor::full({}, double(v), DType::kI64)); };
  const std::string size = b.add("Slice", name + "/size", {b.add("Shape", name + "/shape", {map}), b.ints("ints.2", {2}), b.ints("ints.4", {4})});
  const std::string grid = b.add("Concat", name + "/grid", {b.ints("ints.1_1", {1, 1}), size}, {{"axis", int64_t(0)}});
  const int64_t type = b.type() == DType::kF16 ? 10 : 1;  // of ONNX
  const auto centres = [&](const std::string& axis, int64_t index, const Ints& shape) {
    const std::string at = name + "/" + axis;
    const std::string cells = b.add("Gather", at + "_cells", {size, scalar(std::to_string(index), index)}, {{"axis", int64_t(0)}});
    const std::string numbers = b.add("Range", at + "_range", {scalar("0", 0), cells, scalar("1", 1)});
    const std::string middle = b.add("Add", at + "_centre", {b.add("Cast", at + "_cast", {numbers}, {{"to", type}}), b.numbers("half", Tensor::scalar(0.5))});
    return b.add("Expand", at + "_expand", {b.add("Reshape", at + "_reshape", {middle, b.ints("ints." + axis, shape)}), grid});
  };
  const std::string both = b.add("Concat", name + "/centres", {centres("x", 1, {1, 1, 1, -1}), centres("y", 0, {1, 1, -1, 1})}, {{"axis", int64_t(1)}});
  const std::string pixels = b.add("Expand", name + "/stride_map", {b.numbers(name + "/stride", Tensor::full({1, 1, 1, 1}, double(stride))), grid});
  return {b.add("Reshape", name + "/points", {both, b.ints("ints.1_2_rest", {1, 2, -1})}),
          b.add("Reshape", name + "/strides", {pixels, b.ints("ints.1_1_rest", {1, 1, -1})})};
}

void add_head(Builder& b, const std::string& name, const YoloSeg& model, const Segment& head, const Names& features,
              const OnnxExportOptions& options) {
  const int64_t nc = head.classes(), masks = head.masks();
  const auto flat = [&](const std::string& map, int64_t channels) {  // (N, c, h, w) to (N, c, h * w)
    return b.add("Reshape", map.substr(0, map.rfind('/')) + "/flat", {map, b.ints(fmt::format("flat.{}", channels), {0, channels, -1})});
  };
  add_block(b, name + ".proto", head.proto, features[0]);
  b.rename_last("output1");
  Names box, cls, coefficients, points, strides;
  for (size_t i = 0; i < features.size(); ++i) {
    const auto branch = [&](const char* which) { return fmt::format("{}.{}.{}", name, which, i); };
    const std::string map = add_block(b, branch("cv2"), *head.cv2[i], features[i]);
    if (options.dynamic) {
      const Anchors a = anchors_of_map(b, fmt::format("{}/level.{}", name, i), map, model.strides()[i]);
      points.push_back(a.points), strides.push_back(a.strides);
    }
    box.push_back(flat(map, kBoxLogits));
    cls.push_back(flat(add_block(b, branch("cv3"), *head.cv3[i], features[i]), nc));
    coefficients.push_back(flat(add_block(b, branch("cv4"), *head.cv4[i], features[i]), masks));
  }
  const auto joined = [&](const char* what, const Names& levels) {
    return b.add("Concat", fmt::format("{}/{}", name, what), levels, {{"axis", int64_t(2)}});
  };
  const Anchors anchors = options.dynamic ? Anchors{joined("anchors", points), joined("strides", strides)} : known_anchors(b, name, model, options);
  // Each side's expectation over its bins, as a convolution.
  const std::string dfl = name + ".dfl";
  std::string sides = b.add("Reshape", dfl + "/bins", {joined("box", box), b.ints("bins", {0, 4, kDistanceBins, -1})});
  sides = b.add("Transpose", dfl + "/transpose", {sides}, {{"perm", Ints{0, 2, 1, 3}}});
  sides = b.add("Softmax", dfl + "/softmax", {sides}, {{"axis", int64_t(1)}});
  sides = b.add("Conv", dfl + "/conv", {sides, b.numbers(dfl + ".conv.weight", filter_of(head.dfl.weight.data().to(Device::cpu())))},
                {{"dilations", Ints{1, 1}}, {"group", int64_t(1)}, {"kernel_shape", Ints{1, 1}}, {"pads", Ints{0, 0, 0, 0}}, {"strides", Ints{1, 1}}});
  sides = b.add("Reshape", dfl + "/sides", {sides, b.ints("sides", {0, 4, -1})});
  // From distances to corners, to centre and size, to pixels.
  const Names halves = b.split(name + "/split", sides, b.ints("split_sides", {2, 2}), 1);
  const std::string low = b.add("Sub", name + "/low", {anchors.points, halves[0]}), high = b.add("Add", name + "/high", {anchors.points, halves[1]});
  const std::string centre = b.add("Div", name + "/centre", {b.add("Add", name + "/sum", {low, high}), b.numbers("two", Tensor::scalar(2))});
  const std::string cells = b.add("Concat", name + "/cxcywh", {centre, b.add("Sub", name + "/size", {high, low})}, {{"axis", int64_t(1)}});
  const std::string pixels = b.add("Mul", name + "/pixels", {cells, anchors.strides});
  const std::string scores = b.add("Sigmoid", name + "/scores", {joined("class", cls)});
  b.add("Concat", name + "/output0", {pixels, scores, joined("coefficients", coefficients)}, {{"axis", int64_t(1)}});
  b.rename_last("output0");
}

// --- what surrounds the nodes ---------------------------------------------------------------------------------------------------

std::string now() {
  const std::time_t t = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&t, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

void check(const YoloSeg& model, const OnnxExportOptions& o) {
  const auto within = [](const char* name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) throw Error(ErrorCode::kUsage, fmt::format("{}={}: expected {} to {}", name, value, low, high));
  };
  within("opset", o.opset, kMinOnnxOpset, kMaxOnnxOpset);
  within("batch", o.batch, 1, 65536);
  for (const int64_t size : {o.height, o.width}) {
    within("imgsz", size, model.max_stride(), 8192);
    if (size % model.max_stride() != 0) {
      throw Error(ErrorCode::kUsage, fmt::format("imgsz={} is not a multiple of {}", size, model.max_stride()), {},
                  fmt::format("the next one is {}", (size / model.max_stride() + 1) * model.max_stride()));
    }
  }
}

void describe(OnnxGraph& graph, const YoloSeg& model, const Names& names, const OnnxExportOptions& o) {
  const DType type = o.half ? DType::kF16 : DType::kF32;
  const auto dim = [&](int64_t size, const char* name) { return o.dynamic ? OnnxDim{-1, name} : OnnxDim{size, {}}; };
  int64_t anchors = 0;
  for (const int64_t stride : model.strides()) anchors += (o.height / stride) * (o.width / stride);
  const int64_t fine = model.strides()[0] / 2;  // pixels for each cell of the prototypes
  graph.inputs = {{"images", type, {dim(o.batch, "batch"), {3, {}}, dim(o.height, "height"), dim(o.width, "width")}}};
  graph.outputs = {{"output0", type, {dim(o.batch, "batch"), {4 + model.nc() + model.masks(), {}}, dim(anchors, "anchors")}},
                   {"output1", type, {dim(o.batch, "batch"), {model.masks(), {}}, dim(o.height / fine, "mask_height"), dim(o.width / fine, "mask_width")}}};
  const auto truth = [](bool b) { return b ? "True" : "False"; };
  graph.metadata = {{"description", fmt::format("{}, {} classes, written by Tessera", model.spec().name, model.nc())},
                    {"author", "Tessera"},
                    {"date", now()},
                    {"version", "1"},  // of these metadata
                    {"license", "that of the weights"},
                    {"docs", "docs/cli.md of Tessera"},
                    {"stride", std::to_string(model.max_stride())},
                    {"task", "segment"},
                    {"batch", std::to_string(o.batch)},
                    {"imgsz", fmt::format("[{}, {}]", o.height, o.width)},
                    {"names", python_names(names)},
                    {"args", fmt::format("{{'batch': {}, 'half': {}, 'dynamic': {}, 'simplify': True, 'opset': {}, 'nms': False}}", o.batch,
                                         truth(o.half), truth(o.dynamic), o.opset)},
                    {"channels", "3"}};
}

}  // namespace

std::string python_names(const Names& names) {
  std::string text = "{";
  for (size_t i = 0; i < names.size(); ++i) {
    text += fmt::format("{}{}: '", i == 0 ? "" : ", ", i);
    for (const char c : names[i]) {
      if (c == '\\' || c == '\'') text += '\\';
      if (c == '\n') {
        text += "\\n";
      } else {
        text += c;
      }
    }
    text += "'";
  }
  return text + "}";
}

OnnxGraph build_onnx(YoloSeg& model, const Names& names, const OnnxExportOptions& options) {
  check(model, options);
  TESSERA_CHECK(int64_t(names.size()) == model.nc(), "{} names for {} classes", names.size(), model.nc());
  OnnxGraph graph;
  graph.opset = options.opset;
  graph.ir_version = ir_version_of(options.opset);
  graph.producer = "Tessera";
  graph.name = model.spec().name;
  describe(graph, model, names, options);
  Builder b(graph, options.half);
  Names outputs;
  for (const LayerSpec& layer : model.spec().layers) {
    Names inputs;
    for (const int64_t from : layer.from) inputs.push_back(from < 0 ? "images" : outputs[size_t(from)]);
    const std::string name = fmt::format("model.{}", layer.index);
    Module& module = model.layer(layer.index);
    if (const auto* block = dynamic_cast<ConvBnAct*>(&module)) {
      outputs.push_back(add_block(b, name, *block, inputs[0]));
    } else if (const auto* c2f = dynamic_cast<C2f*>(&module)) {
      outputs.push_back(add_block(b, name, *c2f, inputs[0]));
    } else if (const auto* sppf = dynamic_cast<Sppf*>(&module)) {
      outputs.push_back(add_block(b, name, *sppf, inputs[0]));
    } else if (dynamic_cast<Upsample*>(&module)) {
      outputs.push_back(add_upsample(b, name, inputs[0]));
    } else if (dynamic_cast<Concat*>(&module)) {
      outputs.push_back(b.add("Concat", name + "/concat", inputs, {{"axis", int64_t(1)}}));
    } else {
      TESSERA_CHECK(layer.module == "Segment", "no form in ONNX for a layer of kind {}", layer.module);
      add_head(b, name, model, model.head(), inputs, options);
    }
  }
  return graph;
}

}  // namespace tessera
