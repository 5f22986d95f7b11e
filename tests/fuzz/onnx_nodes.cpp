// Graphs of the operators that are run, in any order and with any sizes: what mutations of a file's bytes do not reach, since
// lengths stand before everything in it. The input decides the constants, the nodes, and what these read.
#include <fuzzer/FuzzedDataProvider.h>

#include "tests/fuzz/fuzz.h"
#include "yolo/io/onnx_program.h"

using namespace tessera;

namespace {

constexpr const char* kOperators[] = {
    "Conv",  "ConvTranspose", "MaxPool", "Resize",    "Upsample", "Sigmoid", "Softmax",         "Add",   "Sub",
    "Mul",   "Div",           "Concat",  "Split",     "Slice",    "Reshape", "Transpose",       "Cast",  "Identity",
    "Shape", "Constant",      "Gather",  "Unsqueeze", "Squeeze",  "Range",   "ConstantOfShape", "Expand"};
constexpr const char* kIntegers[] = {"group", "ceil_mode", "storage_order", "axis",      "num_outputs",    "allowzero", "start",
                                     "end",   "to",        "value_int",     "antialias", "exclude_outside"};
constexpr const char* kLists[] = {"dilations", "kernel_shape", "pads", "strides",   "output_padding",
                                  "split",     "perm",         "axes", "value_ints"};
constexpr std::pair<const char*, const char*> kTexts[] = {
    {"auto_pad", "VALID"}, {"mode", "nearest"}, {"coordinate_transformation_mode", "asymmetric"}, {"nearest_mode", "floor"}};

class Graph {
 public:
  explicit Graph(FuzzedDataProvider& input) : input_(input) {
    graph_.opset = input_.ConsumeIntegralInRange<int64_t>(9, 22);
    graph_.inputs = {{"x", DType::kF32, {{1, {}}, {3, {}}, {4, {}}, {4, {}}}}};
    names_ = {"x"};
  }

  OnnxGraph make() {
    for (size_t n = input_.ConsumeIntegralInRange<size_t>(0, 4); n > 0; --n) {
      graph_.constants.emplace_back(fmt::format("c{}", n), tensor());
      names_.push_back(graph_.constants.back().first);
    }
    for (size_t n = input_.ConsumeIntegralInRange<size_t>(1, 8); n > 0; --n) add_node();
    graph_.outputs = {{names_.back(), DType::kF32, {}}};
    return std::move(graph_);
  }

 private:
  int64_t number() {
    constexpr int64_t kHard[] = {-1, 65537, int64_t(1) << 31, int64_t(1) << 62, INT64_MAX, INT64_MIN, -2, 100};
    const uint8_t b = input_.ConsumeIntegral<uint8_t>();
    return b < 248 ? b % 8 : kHard[b - 248];
  }
  std::vector<int64_t> list() {
    std::vector<int64_t> out(input_.ConsumeIntegralInRange<size_t>(0, 6));
    for (int64_t& v : out) v = number();
    return out;
  }
  // Sizes as parse_onnx lets them through.
  Tensor tensor() {
    if (input_.ConsumeBool()) {
      const std::vector<int64_t> values = list();
      return Tensor::from_vector(values, {int64_t(values.size())});
    }
    Shape shape;
    int64_t count = 1;
    for (size_t rank = input_.ConsumeIntegralInRange<size_t>(0, size_t(kMaxRank)); rank > 0; --rank) {
      const int64_t d = input_.ConsumeIntegralInRange<int64_t>(0, 5);
      shape.push_back(d), count *= d;
    }
    return Tensor::full(shape, float(count % 3));
  }
  void add_node() {
    OnnxNode node;
    node.op = input_.PickValueInArray(kOperators);
    node.name = fmt::format("n{}", names_.size());
    for (size_t n = input_.ConsumeIntegralInRange<size_t>(0, 5); n > 0; --n) {
      node.inputs.push_back(input_.ConsumeIntegralInRange<int>(0, 15) == 0
                                ? ""
                                : names_[input_.ConsumeIntegralInRange<size_t>(0, names_.size() - 1)]);
    }
    for (size_t n = input_.ConsumeIntegralInRange<size_t>(0, 4); n > 0; --n) {
      switch (input_.ConsumeIntegralInRange<int>(0, 4)) {
        case 0: node.attributes.push_back({input_.PickValueInArray(kIntegers), number()}); break;
        case 1: node.attributes.push_back({input_.PickValueInArray(kLists), list()}); break;
        case 2: {
          const auto [name, text] = input_.PickValueInArray(kTexts);
          node.attributes.push_back({name, std::string(text)});
          break;
        }
        case 3: node.attributes.push_back({"value", tensor()}); break;
        default: node.attributes.push_back({"value_floats", std::vector<float>{1, 1, 2, 2}}); break;
      }
    }
    for (size_t n = input_.ConsumeIntegralInRange<size_t>(0, 3); n < 4; ++n) {  // mostly one
      node.outputs.push_back(fmt::format("v{}", names_.size()));
      names_.push_back(node.outputs.back());
      if (n > 0) break;
    }
    graph_.nodes.push_back(std::move(node));
  }

  FuzzedDataProvider& input_;
  OnnxGraph graph_;
  std::vector<std::string> names_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  OnnxGraph graph = Graph(input).make();
  fuzz::takes_or_refuses("a.onnx", [&] {
    const OnnxProgram program(std::move(graph), "a.onnx");
    for (const Tensor& result : program.run(Tensor::full({1, 3, 4, 4}, 0.5f)))
      result.contiguous().to(DType::kF64).to_vector<double>();
  });
  return 0;
}
