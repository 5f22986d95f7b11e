// ONNX files: what is written (its structure pinned here, its values by ONNX Runtime's in tests/golden/onnx.safetensors), and what is
// read, ours and the original's.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "nn/io/onnx_graph.h"
#include "tensor/base/file.h"
#include "tests/support/damage.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"
#include "tests/support/narrow_model.h"
#include "tests/support/temp_folder.h"
#include "tests/yolo/formula_model.h"
#include "yolo/io/onnx_check.h"
#include "yolo/io/onnx_network.h"
#include "yolo/io/ultralytics_names.h"
#include "yolo/io/weights.h"

using namespace tessera;
using testing::error_of;
using testing::says;

namespace fs = std::filesystem;

namespace {

bool ready() {
  if (!has_onnx()) MESSAGE("skipped: " << describe_onnx());
  return has_onnx();
}

std::unique_ptr<YoloSeg> narrow_model(int64_t nc = 2) {
  auto model = std::make_unique<YoloSeg>(parse_model_text(std::string(testing::kNarrowModel), "narrow.yaml", "n", nc));
  testing::set_formula_weights(*model);
  return model;
}

OnnxExportOptions sized(int64_t h, int64_t w, int64_t batch = 1) {
  OnnxExportOptions o;
  o.height = h, o.width = w, o.batch = batch;
  return o;
}

const std::vector<std::string> kNames = {"cat", "dog's"};

// The image of the fixtures, as a graph takes it.
Tensor nchw_image(int64_t n, int64_t h, int64_t w) { return testing::formula_image(n, h, w).permute({0, 3, 1, 2}); }

void check_near(const Tensor& found, const Tensor& wanted, double of_largest) {
  REQUIRE(found.shape() == wanted.shape());
  const std::vector<float> a = found.to_vector<float>(), b = wanted.to_vector<float>();
  double largest = 0, worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(double(b[i])));
    worst = std::max(worst, std::isfinite(a[i]) ? std::abs(double(a[i]) - double(b[i])) : INFINITY);
  }
  INFO("differs by " << worst << ", largest " << largest);
  CHECK(worst <= of_largest * largest);
}

void check_outputs(const std::vector<Tensor>& found, const testing::TensorMap& golden, const std::string& kind, double of_largest) {
  REQUIRE(found.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CAPTURE(i);
    check_near(found[i], golden.at(fmt::format("{}.output{}", kind, i)), of_largest);
  }
}

// f32 sums of ONNX Runtime against ours: what was measured is below 1e-6 of the largest value.
constexpr double kSums = 1e-5;

}  // namespace

TEST_CASE("onnx: the graph that is written, node by node") {
  const auto model = narrow_model();
  const OnnxGraph g = build_onnx(*model, kNames, sized(64, 96, 3));
  std::map<std::string, int> count;
  std::set<std::string> names, known = {"images"};
  for (const auto& [name, tensor] : g.constants) CHECK(known.insert(name).second);
  for (const OnnxNode& n : g.nodes) {
    ++count[n.op];
    CAPTURE(n.name);
    CHECK(names.insert(n.name).second);  // no name twice
    for (const std::string& input : n.inputs) CHECK((input.empty() || known.contains(input)));  // made before
    for (const std::string& output : n.outputs) CHECK(known.insert(output).second);
  }
  // 66 Conv blocks, 9 convolutions of logits and the expectation; 6 bottlenecks have a shortcut.
  const std::map<std::string, int> expected = {{"Add", 8},    {"Concat", 18},  {"Conv", 76},   {"ConvTranspose", 1}, {"Div", 1},
                                               {"MaxPool", 3}, {"Mul", 67},     {"Reshape", 11}, {"Resize", 2},        {"Sigmoid", 67},
                                               {"Softmax", 1}, {"Split", 9},    {"Sub", 2},      {"Transpose", 1}};
  CHECK(count == expected);
  for (const char* name : {"model.0/conv", "model.0/mul", "model.2/split", "model.2.m.0.cv1/sigmoid", "model.4.m.1/add", "model.9/max_pool.2",
                           "model.10/resize", "model.11/concat", "model.22.cv3.2.2/conv", "model.22.proto.upsample/conv_transpose", "model.22.dfl/softmax",
                           "model.22/output0"}) {
    CAPTURE(name);
    CHECK(names.contains(name));
  }
  CHECK(g.nodes[0].inputs == std::vector<std::string>{"images", "model.0.conv.weight", "model.0.conv.bias"});
  CHECK(std::get<std::vector<int64_t>>(g.nodes[0].find("strides")->value) == std::vector<int64_t>{2, 2});
  CHECK(std::get<std::vector<int64_t>>(g.nodes[0].find("pads")->value) == std::vector<int64_t>{1, 1, 1, 1});
  const std::map<std::string, Tensor> constants(g.constants.begin(), g.constants.end());
  CHECK(constants.at("model.1.conv.weight").shape() == Shape{8, 8, 3, 3});
  CHECK(constants.at("model.0.conv.weight").shape() == Shape{8, 3, 3, 3});
  CHECK(constants.at("model.22.proto.upsample.weight").shape() == Shape{16, 16, 2, 2});
  CHECK(constants.at("model.22/anchors").shape() == Shape{1, 2, 126});
  // (O, kH, kW, I) became (O, I, kH, kW), with batch norm inside.
  const auto* first = dynamic_cast<ConvBnAct*>(&model->layer(0));
  REQUIRE(first != nullptr);
  const auto [weight, bias] = first->folded_weights();
  CHECK(constants.at("model.0.conv.weight").to_vector<float>() == weight.permute({0, 3, 1, 2}).to_vector<float>());
  CHECK(constants.at("model.0.conv.bias").to_vector<float>() == bias.to_vector<float>());
  CHECK(to_file_layout(model->state_dict()).at("model.22.proto.upsample.weight").to_vector<float>() ==
        constants.at("model.22.proto.upsample.weight").to_vector<float>());

  const auto shape_of = [](const OnnxValue& v) {
    std::vector<int64_t> sizes;
    for (const OnnxDim& d : v.dims) sizes.push_back(d.size);
    return sizes;
  };
  CHECK(shape_of(g.inputs.at(0)) == std::vector<int64_t>{3, 3, 64, 96});
  CHECK(shape_of(g.outputs.at(0)) == std::vector<int64_t>{3, 38, 126});
  CHECK(shape_of(g.outputs.at(1)) == std::vector<int64_t>{3, 32, 16, 24});
  CHECK(g.opset == 17);
  CHECK(g.ir_version == 8);
  CHECK(g.metadata_of("names") == "{0: 'cat', 1: 'dog\\'s'}");
  CHECK(g.metadata_of("imgsz") == "[64, 96]");
  CHECK(g.metadata_of("batch") == "3");
  CHECK(g.metadata_of("stride") == "32");
  CHECK(g.metadata_of("task") == "segment");
  CHECK(g.metadata_of("args") == "{'batch': 3, 'half': False, 'dynamic': False, 'simplify': True, 'opset': 17, 'nms': False}");

  OnnxExportOptions o = sized(64, 64);
  o.dynamic = o.half = true;
  const OnnxGraph free = build_onnx(*model, kNames, o);
  CHECK(shape_of(free.inputs.at(0)) == std::vector<int64_t>{-1, 3, -1, -1});
  CHECK(free.outputs.at(0).dims.at(2).name == "anchors");
  CHECK(free.inputs.at(0).type == DType::kF16);
  for (const auto& [name, tensor] : free.constants) {
    CAPTURE(name);
    CHECK((tensor.dtype() == DType::kF16 || tensor.dtype() == DType::kI64 || name == "upsample_scales"));
  }
}

TEST_CASE("onnx: sizes and opsets that are not allowed are refused") {
  const auto model = narrow_model();
  const auto refused = [&](const OnnxExportOptions& o) { return error_of([&] { build_onnx(*model, kNames, o); }).code() == ErrorCode::kUsage; };
  CHECK(refused(sized(100, 64)));
  CHECK(refused(sized(64, 0)));
  CHECK(refused(sized(64, 64, 0)));
  for (const int64_t opset : {12, 23}) {
    OnnxExportOptions o = sized(64, 64);
    o.opset = opset;
    CHECK(refused(o));
  }
}

TEST_CASE("onnx: an exported file gives what the model gives, and what ONNX Runtime computes of it") {
  if (!ready()) return;
  const testing::TempFolder folder;
  const testing::TensorMap golden = testing::read_safetensors(testing::golden_dir() / "onnx.safetensors");
  const auto model = narrow_model();
  struct Row {
    const char* kind;
    OnnxExportOptions options;
    int64_t n, h, w;
    double tolerance;
  };
  OnnxExportOptions half = sized(64, 64), dynamic = sized(64, 96);
  half.half = dynamic.dynamic = true;
  // fp16: ONNX Runtime rounds every result, we the weights only; 2^-11 a rounding, over some twenty layers.
  for (const Row& row : {Row{"static", sized(64, 64), 1, 64, 64, kSums}, Row{"dynamic", dynamic, 2, 64, 96, kSums}, Row{"half", half, 1, 64, 64, 1e-2}}) {
    CAPTURE(row.kind);
    const fs::path file = folder / (std::string(row.kind) + ".onnx");
    const OnnxReport r = export_onnx(*model, kNames, file, row.options);
    CHECK(r.file.box_px <= 1e-3);
    CHECK(r.file.score <= 1e-6);
    CHECK(r.file.coefficients <= 1e-6);
    CHECK(r.file.prototypes <= 1e-6);
    CHECK((r.rounding.prototypes > 0) == row.options.half);
    CHECK(r.bytes == int64_t(fs::file_size(file)));
    CHECK(!fs::exists(file.string() + ".unchecked"));
    const OnnxProgram program(read_onnx(file), file.string());
    check_outputs(program.run(nchw_image(row.n, row.h, row.w)), golden, row.kind, row.tolerance);
  }
}

TEST_CASE("onnx: every form of export is checked: batches, sizes, opsets, classes") {
  if (!ready()) return;
  const testing::TempFolder folder;
  for (const int64_t nc : {1, 7}) {
    const auto model = narrow_model(nc);
    for (const bool dynamic : {false, true}) {
      for (const int64_t opset : {13, 18, 22}) {
        OnnxExportOptions o = sized(32, 64, 2);
        o.dynamic = dynamic, o.opset = opset, o.half = opset == 18;
        const OnnxReport r = export_onnx(*model, numbered_names(nc), folder / "m.onnx", o);
        CHECK(r.file.prototypes <= 1e-6);
        CHECK(read_onnx(folder / "m.onnx").opset == opset);
      }
    }
  }
}

TEST_CASE("onnx: a file that is not the model is an error and is removed, and a weight beyond fp16 is named") {
  if (!ready()) return;
  const testing::TempFolder folder;
  const auto model = narrow_model();
  auto* block = dynamic_cast<ConvBnAct*>(&model->layer(3));
  REQUIRE(block != nullptr);
  block->conv.weight.data().fill(1e9);
  OnnxExportOptions o = sized(32, 32);
  o.half = true;
  const Error e = error_of([&] { export_onnx(*model, kNames, folder / "m.onnx", o); });
  CHECK(e.code() == ErrorCode::kData);
  CHECK(says(e, "weight 'model.3.conv.weight' is beyond"));
  block->conv.weight.data().fill(std::nan(""));
  o.half = false;
  const Error nan = error_of([&] { export_onnx(*model, kNames, folder / "m.onnx", o); });
  CHECK(nan.code() == ErrorCode::kBug);
  CHECK(says(nan, "does not give what the model gives"));
  CHECK(fs::is_empty(folder / "."));
}

TEST_CASE("onnx: files of the original run, and give what ONNX Runtime computes") {
  if (!ready()) return;
  const testing::TempFolder folder;
  const testing::TensorMap golden = testing::read_safetensors(testing::golden_dir() / "onnx.safetensors");
  const auto model = narrow_model();
  // The weights that the fixtures leave out are ours, folded.
  for (const auto& [name, tensor] : build_onnx(*model, kNames, sized(64, 64)).constants) {
    if (!name.ends_with(".weight") && !name.ends_with(".bias")) continue;
    const Tensor dense = tensor.contiguous();
    write_file_atomic(folder / (name + ".bin"), {static_cast<const char*>(dense.raw()), size_t(dense.numel()) * sizeof(float)});
  }
  for (const char* exporter : {"traced", "program"}) {
    for (const bool dynamic : {false, true}) {
      const std::string kind = dynamic ? "dynamic" : "static", name = fmt::format("{}_{}.onnx", exporter, kind);
      CAPTURE(name);
      fs::copy_file(testing::golden_dir() / "onnx" / name, folder / name);
      OnnxNetwork network(folder / name);
      CHECK(network.dynamic() == dynamic);
      CHECK(network.names() == std::vector<std::string>{"0", "1"});
      CHECK(network.batch() == 1);
      CHECK(network.size() == std::array<int64_t, 2>{64, dynamic ? 96 : 64});
      CHECK(network.strides() == std::array<int64_t, 3>{8, 16, 32});
      const OnnxProgram program(read_onnx(folder / name), name);
      check_outputs(program.run(dynamic ? nchw_image(2, 64, 96) : nchw_image(1, 64, 64)), golden, kind, kSums);
    }
  }
  fs::remove(folder / "model.22.cv4.0.2.weight.bin");
  const Error e = error_of([&] { OnnxNetwork network(folder / "program_static.onnx"); });
  CHECK(e.code() == ErrorCode::kData);
  CHECK(says(e, "constant 'model.22.cv4.0.2.weight': its values lie in"));
}

TEST_CASE("onnx: as a network it gives the detections' maps, in parts of its batch") {
  if (!ready()) return;
  const testing::TempFolder folder;
  const auto model = narrow_model();
  export_onnx(*model, kNames, folder / "two.onnx", sized(64, 64, 2));
  OnnxExportOptions o = sized(64, 64);
  o.dynamic = true;
  export_onnx(*model, kNames, folder / "free.onnx", o);
  OnnxNetwork two(folder / "two.onnx"), free(folder / "free.onnx");
  CHECK(two.names() == kNames);
  CHECK(two.batch() == 2);
  const Tensor images = Tensor::empty({5, 64, 64, 3}, DType::kU8);
  for (int64_t i = 0; i < images.numel(); ++i) images.data<uint8_t>()[i] = uint8_t(i * i % 251);
  two.place(images), free.place(images);
  const RawOutputs a = two.run(), b = free.run();  // 2 + 2 + 1 and one black, or all five
  CHECK(a.decoded);
  CHECK(a.box[1].shape() == Shape{5, 4, 4, 4});
  CHECK(a.cls[0].shape() == Shape{5, 8, 8, 2});
  CHECK(a.coefficients[2].shape() == Shape{5, 2, 2, 32});
  for (size_t l = 0; l < 3; ++l) {
    check_near(a.box[l].data(), b.box[l].data(), 1e-6);
    check_near(a.cls[l].data(), b.cls[l].data(), 1e-6);
    check_near(a.coefficients[l].data(), b.coefficients[l].data(), 1e-6);
  }
  check_near(a.prototypes.data(), b.prototypes.data(), 1e-6);
  const Error e = error_of([&] { two.place(images.narrow(1, 0, 32)); });
  CHECK(e.code() == ErrorCode::kUsage);
  CHECK(says(e, "32 x 64 for a file that takes 64 x 64 only"));
}

TEST_CASE("onnx: names as Python writes them") {
  CHECK(names_from_python("{0: 'a', 1: \"b's\"}") == std::vector<std::string>{"a", "b's"});
  CHECK(names_from_python("{1: 'b', 0: 'a\\'\\\\'}") == std::vector<std::string>{"a'\\", "b"});
  // repr(['a\tb', 'hot\xa0dog', '\x7f', 'a\u200bb', '\U000e0041'])
  CHECK(names_from_python(R"({0: 'a\tb', 1: 'hot\xa0dog', 2: '\x7f', 3: 'a\u200bb', 4: '\U000e0041'})") ==
        std::vector<std::string>{"a\tb", "hot\u00a0dog", "\x7f", "a\u200bb", "\U000e0041"});
  CHECK(names_from_python("{}").empty());
  for (const char* bad : {"", "{", "{0: a}", "{0: 'a}", "{0: 'a', 2: 'b'}", "{-1: 'a'}", "['a']", "{0: 'a' 1: 'b'}", "{0: '\\",
                          "{0: '\\x4'}", "{0: '\\u12g4'}", "{0: '\\U00110000'}"}) {
    CAPTURE(bad);
    CHECK(names_from_python(bad).empty());
  }
  const std::vector<std::string> names = {"x", "it's", "back\\slash", "\"", "two\nlines", "\xC3\xA9"};
  CHECK(names_from_python(python_names(names)) == names);
}

TEST_CASE("onnx: what is not run is refused by node, operator and attribute") {
  const auto model = narrow_model();
  const OnnxGraph good = build_onnx(*model, kNames, sized(32, 32));
  const Tensor x = nchw_image(1, 32, 32);
  const auto refused = [&](const std::function<void(OnnxGraph&)>& change, const std::vector<const char*>& parts) {
    OnnxGraph g = good;
    change(g);
    const Error e = error_of([&] { OnnxProgram(std::move(g), "m.onnx").run(x); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(e.where().file == "m.onnx");
    CHECK(!e.hint().empty());
    for (const char* part : parts) {
      INFO(e.message());
      CAPTURE(part);
      CHECK(says(e, part));
    }
  };
  const auto set = [](OnnxNode& n, const char* name, decltype(OnnxAttribute::value) value) {
    for (OnnxAttribute& a : n.attributes) {
      if (a.name == name) {
        a.value = std::move(value);
        return;
      }
    }
    n.attributes.push_back({name, std::move(value)});
  };
  using Ints = std::vector<int64_t>;
  refused([&](OnnxGraph& g) { g.nodes[1].op = "HardSigmoid"; }, {"node 'model.0/sigmoid' (HardSigmoid)", "operator"});
  refused([&](OnnxGraph& g) { g.nodes[1].op = "com.microsoft::QuickGelu"; }, {"(com.microsoft::QuickGelu)"});
  refused([&](OnnxGraph& g) { set(g.nodes[0], "group", int64_t(3)); }, {"node 'model.0/conv' (Conv)", "attribute 'group' is 3"});
  refused([&](OnnxGraph& g) { set(g.nodes[0], "pads", Ints{0, 0, 1, 1}); }, {"attribute 'pads' is [0, 0, 1, 1]"});
  refused([&](OnnxGraph& g) { set(g.nodes[0], "dilations", Ints{2, 2}); }, {"attribute 'dilations'"});
  refused([&](OnnxGraph& g) { set(g.nodes[0], "auto_pad", std::string("SAME_UPPER")); }, {"attribute 'auto_pad' is 'SAME_UPPER'"});
  refused([&](OnnxGraph& g) { set(g.nodes[0], "auto_pad", int64_t(1)); }, {"attribute 'auto_pad' is of another kind"});
  refused([&](OnnxGraph& g) { set(g.nodes[1], "alpha", 0.5f); }, {"(Sigmoid)", "attribute 'alpha' is not known"});
  refused([&](OnnxGraph& g) { g.nodes[0].inputs[0] = "nobody"; }, {"nothing before it makes its input 'nobody'"});
  refused([&](OnnxGraph& g) { g.nodes[3].outputs = g.nodes[0].outputs; }, {"is made twice"});
  refused([&](OnnxGraph& g) { g.inputs.clear(); }, {"no input"});
  refused([&](OnnxGraph& g) { g.outputs[0].name = "other"; }, {"nothing makes the output 'other'"});
  for (const size_t i : {0, 1, 2}) {  // also of nodes that are made in one pass
    refused([&](OnnxGraph& g) { g.nodes[i].outputs.push_back("second"), g.outputs[0].name = "second"; }, {"it has no result number 1"});
  }
  for (OnnxNode& n : OnnxGraph(good).nodes) {
    if (n.op == "Resize") {
      const std::string name = n.name;
      refused([&](OnnxGraph& g) { for (OnnxNode& m : g.nodes) if (m.name == name) set(m, "mode", std::string("linear")); }, {"(Resize)", "attribute 'mode' is 'linear'"});
    }
  }
}

// Found by tests/fuzz.
TEST_CASE("onnx: numbers that no arithmetic of sizes holds are refused") {
  constexpr int64_t kHuge = int64_t(1) << 62;
  OnnxGraph g;
  g.inputs = {{"x", DType::kF32, {{1, {}}, {3, {}}, {4, {}}, {4, {}}}}};
  g.outputs = {{"y", DType::kF32, {}}};
  g.constants = {{"sizes", Tensor::from_vector<int64_t>({0, kHuge, kHuge}, {3})}};
  g.nodes = {{"ConstantOfShape", "n", {"sizes"}, {"y"}, {}}};
  const Error e = error_of([&] { OnnxProgram(std::move(g), "m.onnx"); });
  CHECK(e.code() == ErrorCode::kData);
  CHECK(says(e, "node 'n' (ConstantOfShape): a result of"));
  if (!ready()) return;
  const testing::TempFolder folder;
  OnnxGraph file = build_onnx(*narrow_model(), kNames, sized(32, 32));
  file.outputs[0].dims[1].size = 0, file.outputs[1].dims[1].size = INT64_MAX;
  write_onnx(folder / "m.onnx", file);
  CHECK(says(error_of([&] { OnnxNetwork network(folder / "m.onnx"); }), "its output1 has 9223372036854775807 prototypes"));
}

// The file's bytes are guarded by checksums and by protobuf, so here its content is damaged behind them.
TEST_CASE("onnx: damaged graphs are run or refused by name, in proportion to the image") {
  const auto model = narrow_model();
  OnnxExportOptions o = sized(32, 32);
  testing::Verdicts verdicts;
  for (const bool dynamic : {false, true}) {
    o.dynamic = dynamic;
    const OnnxGraph good = build_onnx(*model, kNames, o);
    const Tensor x = nchw_image(1, 32, 32);
    std::mt19937 random(7);
    const auto below = [&](size_t n) { return size_t(random() % n); };
    const auto number = [&] {
      constexpr int64_t kHard[] = {-1, 0, 1, 2, 3, 5, 64, 65537, int64_t(1) << 31, INT64_MAX, INT64_MIN};
      return kHard[below(std::size(kHard))];
    };
    const auto damage = [&](OnnxGraph& g) {
      OnnxNode& n = g.nodes[below(g.nodes.size())];
      const OnnxNode& other = g.nodes[below(g.nodes.size())];
      switch (below(8)) {
        case 0: if (!n.inputs.empty()) n.inputs[below(n.inputs.size())] = other.outputs[0]; break;
        case 1: if (!n.inputs.empty()) n.inputs.pop_back(); break;
        case 2: n.op = other.op; break;
        case 3: n.op = other.op, n.attributes = other.attributes; break;
        case 4: std::swap(n, g.nodes[below(g.nodes.size())]); break;
        case 5: if (!n.inputs.empty()) n.inputs[below(n.inputs.size())] = g.constants[below(g.constants.size())].first; break;
        case 6: {
          Tensor& t = g.constants[below(g.constants.size())].second;
          if (t.dtype() == DType::kI64) {
            t = t.clone();
            t.data<int64_t>()[below(size_t(t.numel()))] = number();
          } else if (t.rank() > 0 && t.size(0) > 1) {
            t = t.narrow(0, 0, t.size(0) - 1).contiguous();
          }
          break;
        }
        default:
          for (OnnxAttribute& a : n.attributes) {
            if (auto* i = std::get_if<int64_t>(&a.value)) *i = number();
            if (auto* list = std::get_if<std::vector<int64_t>>(&a.value); list && !list->empty()) (*list)[below(list->size())] = number();
          }
      }
    };
    for (int round = 0; round < 400; ++round) {
      CAPTURE(round);
      OnnxGraph g = good;
      for (size_t changes = 1 + below(2); changes > 0; --changes) damage(g);
      testing::takes_or_refuses("m.onnx", [&] { OnnxProgram(std::move(g), "m.onnx").run(x); }, verdicts);
    }
  }
  CHECK(verdicts.taken > 50);
  CHECK(verdicts.refused > 300);
}
