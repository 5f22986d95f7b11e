#include "yolo/model.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "autograd/functions/pointwise.h"
#include "autograd/functions/reduce.h"
#include "autograd/grad_mode.h"
#include "nn/parameter_arena.h"
#include "tensor/backend.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"
#include "tests/yolo/formula_model.h"

using namespace tessera;

namespace {

const nlohmann::json& counts_fixture() {
  static const nlohmann::json json = testing::read_json(testing::golden_dir() / "model_counts.json");
  return json;
}

// Largest difference, as a part of the largest value expected; infinite for a NaN.
double difference(const Tensor& got, const Tensor& expected) {
  REQUIRE(got.numel() == expected.numel());
  const std::vector<float> a = got.to_vector<float>(), b = expected.to_vector<float>();
  double worst = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i])) return INFINITY;
    worst = std::max(worst, std::abs(double(a[i]) - b[i]));
    largest = std::max(largest, std::abs(double(b[i])));
  }
  return worst / largest;
}

double worst_difference(const RawOutputs& a, const RawOutputs& b) {
  double worst = difference(a.prototypes.data(), b.prototypes.data());
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    worst = std::max({worst, difference(a.box[i].data(), b.box[i].data()), difference(a.cls[i].data(), b.cls[i].data()),
                      difference(a.coefficients[i].data(), b.coefficients[i].data())});
  }
  return worst;
}

// Columns [start, start + n) of an (N, A, channels) fixture, rows of one level, in the shape of `like`.
Tensor level_columns(const Tensor& all, size_t level, int64_t start, int64_t n, const Tensor& like) {
  const std::array<int64_t, kAnchorLevels> first{0, 96, 120}, rows{96, 24, 6};  // 64 x 96
  return all.narrow(1, first[level], rows[level]).narrow(2, start, n).contiguous().view(like.shape());
}

Tensor logit(const Tensor& probabilities) {
  const Tensor x = probabilities.clone();
  for (int64_t i = 0; i < x.numel(); ++i)
    x.data<float>()[i] = float(std::log(double(x.data<float>()[i]) / (1 - double(x.data<float>()[i]))));
  return x;
}

// Against what the original gave for the scale.
double golden_difference(const RawOutputs& out, const testing::TensorMap& golden) {
  double worst = difference(out.prototypes.data(), golden.at("prototypes"));
  const Tensor& decoded = golden.at("decoded");
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    const Tensor cls = out.cls[i].data(), coefficients = out.coefficients[i].data();
    worst = std::max(worst, difference(coefficients, level_columns(decoded, i, 84, 32, coefficients)));
    if (golden.contains("map0")) {
      const Tensor& map = golden.at("map" + std::to_string(i));
      worst = std::max({worst, difference(out.box[i].data(), map.narrow(3, 0, 64).contiguous()),
                        difference(cls, map.narrow(3, 64, 80).contiguous())});
    } else {  // only the class scores are there
      worst = std::max(worst, difference(cls, logit(level_columns(decoded, i, 4, 80, cls))));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("counts of every scale") {
  for (const char* scale : {"n", "s", "m", "l", "x"}) {
    CAPTURE(scale);
    const nlohmann::json& expected = counts_fixture().at("counts").at(scale);
    YoloSeg model(parse_model_yaml("yolov8-seg", scale));
    const ModelCounts c = model.counts();
    CHECK(c.parameters == expected.at("nc80"));
    CHECK(c.fused_parameters == expected.at("fused"));
    CHECK(c.trainable == c.parameters - 16);
    CHECK(c.state_entries == expected.at("state_entries"));
    CHECK(c.fused_state_entries == expected.at("fused_state_entries"));
    const auto table = model.layer_table(640, 640);
    double flops = 0;
    for (const LayerSummary& row : table) {
      CAPTURE(row.index);
      CHECK(row.parameters == expected.at("layers").at(size_t(row.index)));
      flops += row.flops;
    }
    // examples.md, fused column; it counts biases too.
    const std::map<std::string, double> gflops{{"n", 12.003}, {"s", 40.086}, {"m", 104.538}, {"l", 210.393}, {"x", 328.357}};
    CHECK(flops / 1e9 == doctest::Approx(gflops.at(scale)).epsilon(1e-3));
    CHECK(YoloSeg(parse_model_yaml("yolov8-seg", scale, 1)).counts().parameters == expected.at("nc1"));
  }
  const std::map<std::string, std::array<int64_t, 3>> blocks{{"s", {66, 151, 85}}, {"m", {86, 191, 105}}, {"l", {106, 231, 125}}};
  for (const auto& [scale, expected] : blocks) {
    const ModelCounts c = YoloSeg(parse_model_yaml("yolov8-seg", scale)).counts();
    CHECK(std::array{c.conv_blocks, c.layers, c.fused_layers} == expected);
  }
}

TEST_CASE("a class count equal to a base width widens the network") {
  const std::map<int64_t, int64_t> expected{{64, 3291312}, {128, 3784800}, {256, 8935296}, {512, 14363616}, {1024, 22548192}};
  for (const auto& [nc, parameters] : expected) {
    CAPTURE(nc);
    CHECK(YoloSeg(parse_model_yaml("yolov8n-seg", "", nc)).counts().parameters == parameters);
  }
}

TEST_CASE("state entries have the original's names, order and sizes") {
  YoloSeg model(parse_model_yaml("yolov8n-seg"));
  std::map<std::string, Shape> ours;
  std::vector<std::string> order;
  for (const auto& [name, tensor] : model.state_dict()) ours[name] = tensor.shape();
  const nlohmann::json& expected = counts_fixture().at("state_n_nc80");
  CHECK(ours.size() == expected.size());
  for (const auto& [name, shape] : expected.items()) {
    REQUIRE_MESSAGE(ours.contains(name), name);
    int64_t count = 1;
    for (const auto& d : shape) count *= d.get<int64_t>();
    CHECK(numel(ours.at(name)) == count);
  }
  model.for_each_parameter([&](const std::string& name, Variable& p) {
    if (p.requires_grad()) order.push_back(name);
  });
  const nlohmann::json parameters = testing::read_json(testing::golden_dir() / "train_step_n.json").at("parameters");
  CHECK(order == parameters.get<std::vector<std::string>>());
}

TEST_CASE("the optimizer groups have the original's sizes and hold every trained parameter") {
  // The original counts one decayed weight more: the frozen one of the DFL layer.
  const std::map<std::string, std::array<size_t, 3>> expected{{"n", {76, 76, 66}}, {"m", {96, 96, 86}}};
  for (const auto& [scale, sizes] : expected) {
    YoloSeg model(parse_model_yaml("yolov8-seg", scale));
    const ParameterArena arena(model);
    CHECK(arena.entries(ParamGroup::kBias).size() == sizes[0]);
    CHECK(arena.entries(ParamGroup::kWeight).size() == sizes[1]);
    CHECK(arena.entries(ParamGroup::kNorm).size() == sizes[2]);
    int64_t trained = 0;
    for (int g = 0; g < kTrainedGroups; ++g) {
      for (const ParameterArena::Entry& e : arena.entries(ParamGroup(g))) trained += e.count;
    }
    CHECK(trained == model.counts().trainable);
  }
}

TEST_CASE("strides and output shapes") {
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 3));
  CHECK(model.strides() == std::array<int64_t, 3>{8, 16, 32});
  const NoGrad guard;
  model.train(false);
  const RawOutputs out = model.forward(Variable(Tensor::zeros({1, 64, 64, 3}, DType::kU8)));
  CHECK(out.box[0].shape() == Shape{1, 8, 8, 64});
  CHECK(out.cls[1].shape() == Shape{1, 4, 4, 3});
  CHECK(out.coefficients[2].shape() == Shape{1, 2, 2, 32});
  CHECK(out.prototypes.shape() == Shape{1, 16, 16, 32});
  CHECK_THROWS_AS(model.forward(Variable(Tensor::zeros({1, 48, 64, 3}))), Error);
  const auto table = model.layer_table(64, 64);
  CHECK(table.back().outputs ==
        std::vector<Shape>{
            {8, 8, 64}, {8, 8, 3}, {8, 8, 32}, {4, 4, 64}, {4, 4, 3}, {4, 4, 32}, {2, 2, 64}, {2, 2, 3}, {2, 2, 32}, {16, 16, 32}});
  CHECK(table[11].outputs[0] == Shape{4, 4, 384});
}

TEST_CASE("init() is a function of the seed, with the original's biases of the head and bounds of the weights") {
  YoloSeg model(parse_model_yaml("yolov8n-seg")), same(parse_model_yaml("yolov8n-seg"));
  model.init(7);
  same.init(7);
  const StateDict state = model.state_dict(), other = same.state_dict();
  for (const auto& [name, tensor] : state) {
    if (tensor.dtype() == DType::kF32) CHECK_MESSAGE(tensor.to_vector<float>() == other.at(name).to_vector<float>(), name);
  }
  const std::array<double, 3> bias{-11.536642, -10.150348, -8.764053};
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    CHECK(state.at(fmt::format("model.22.cv2.{}.2.bias", i)).to_vector<float>() == std::vector<float>(64, 1.0f));
    CHECK(state.at(fmt::format("model.22.cv3.{}.2.bias", i)).to_vector<float>()[79] == doctest::Approx(bias[i]).epsilon(1e-6));
  }
  const auto largest = [&](const char* name) {
    float worst = 0;
    for (float v : state.at(name).to_vector<float>()) worst = std::max(worst, std::abs(v));
    return worst;
  };
  CHECK(largest("model.22.proto.upsample.weight") <= 0.0625f);  // 1 / sqrt(64 * 4)
  CHECK(largest("model.22.proto.upsample.weight") > 0.06f);
  CHECK(largest("model.0.conv.weight") <= float(1 / std::sqrt(27.0)));
  CHECK(state.at("model.22.dfl.conv.weight").to_vector<float>()[15] == 15.0f);
}

TEST_CASE("outputs with formula weights equal the original's on every backend") {
  for (const char* scale : {"n", "s"}) {
    CAPTURE(scale);
    const auto golden = testing::read_safetensors(testing::golden_dir() / fmt::format("model_{}.safetensors", scale));
    YoloSeg model(parse_model_yaml("yolov8-seg", scale));
    testing::set_formula_weights(model);
    model.train(false);
    const NoGrad guard;
    const Variable image(testing::formula_image(2, 64, 96));
    for (Backend* backend : available_backends()) {
      if (backend->device_kind() != Device::Kind::kCpu) continue;
      CAPTURE(backend->name());
      const BackendGuard use(*backend);
      CHECK(golden_difference(model.forward(image), golden) <= 1e-4);
      model.fold();
      CHECK(golden_difference(model.forward(image), golden) <= 1e-4);
      model.unfold();
    }
  }
}

TEST_CASE("plain, fused and folded paths agree") {
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 5));
  testing::set_formula_weights(model);
  const Variable image(testing::formula_image(1, 64, 64));
  const NoGrad guard;
  model.train(false);
  const RawOutputs fused = model.forward(image);
  model.fold();
  CHECK(model.folded());
  CHECK(worst_difference(model.forward(image), fused) < 2e-5);
  model.unfold();
  ConvBnAct::use_plain_path(true);
  const RawOutputs plain = model.forward(image);
  ConvBnAct::use_plain_path(false);
  CHECK(worst_difference(plain, fused) < 2e-5);
}

TEST_CASE("folded for good: the same outputs, and no other path") {
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 5));
  testing::set_formula_weights(model);
  const Variable image(testing::formula_image(1, 64, 64));
  const NoGrad guard;
  model.train(false);
  model.fold();
  const RawOutputs folded = model.forward(image);
  model.unfold();
  model.fold_for_good();
  model.fold();  // as a predictor does
  CHECK(worst_difference(model.forward(image), folded) == 0);
  model.unfold();
  CHECK(model.folded());
  CHECK(worst_difference(model.forward(image), folded) == 0);
  model.train(true);
  CHECK(testing::error_of([&] { model.forward(image); }).message().find("let go of") != std::string::npos);
}

TEST_CASE("outputs in bf16 stay near those in f32, folded or not") {
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 5));
  testing::set_formula_weights(model);
  const Variable image(testing::formula_image(1, 64, 64));
  const NoGrad guard;
  model.train(false);
  const RawOutputs wide = model.forward(image);
  model.set_compute_type(DType::kBF16);
  const RawOutputs narrow = model.forward(image);
  CHECK(narrow.prototypes.data().dtype() == DType::kF32);
  CHECK(worst_difference(narrow, wide) < 0.03);
  CHECK(worst_difference(narrow, wide) > 1e-5);
  model.fold();
  CHECK(worst_difference(model.forward(image), wide) < 0.03);
}

TEST_CASE("gradients of the plain and the fused path agree") {
  std::vector<Tensor> gradients[2];
  for (const bool plain : {false, true}) {
    YoloSeg model(parse_model_yaml("yolov8n-seg", "", 2));
    testing::set_formula_weights(model);
    ConvBnAct::use_plain_path(plain);
    const RawOutputs out = model.forward(Variable(testing::formula_image(2, 64, 64)));
    ConvBnAct::use_plain_path(false);
    // Two of the ten outputs reach every layer: all features meet in the last level.
    ag::add(ag::sum(out.box[2]), ag::sum(out.prototypes)).backward();
    model.for_each_parameter([&](const std::string&, Variable& p) {
      if (p.requires_grad() && p.grad().defined()) gradients[plain].push_back(p.grad());
    });
  }
  REQUIRE(gradients[0].size() == gradients[1].size());
  CHECK(gradients[0].size() > 150);
  for (size_t i = 0; i < gradients[0].size(); ++i) CHECK(difference(gradients[0][i], gradients[1][i]) < 1e-3);
}
