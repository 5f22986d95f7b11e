#include "yolo/io/weights.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "nn/io/safetensors.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"
#include "tests/support/temp_folder.h"
#include "tests/yolo/formula_model.h"
#include "yolo/io/ultralytics_names.h"

using namespace tessera;

namespace {

bool same(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    const Tensor* other = b.find(name);
    if (!other || other->shape() != tensor.shape()) return false;
    if (tensor.dtype() == DType::kF32 ? tensor.to_vector<float>() != other->to_vector<float>()
                                      : tensor.to_vector<int64_t>() != other->to_vector<int64_t>()) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("file layout is PyTorch's, with the original's shapes") {
  YoloSeg model(parse_model_yaml("yolov8n-seg"));
  testing::set_formula_weights(model);
  const StateDict file = to_file_layout(model.state_dict());
  const nlohmann::json json = testing::read_json(testing::golden_dir() / "model_counts.json");
  CHECK(file.size() == json.at("state_n_nc80").size());
  for (const auto& [name, shape] : json.at("state_n_nc80").items()) {
    CAPTURE(name);
    Shape expected;
    for (const auto& d : shape) expected.push_back(d.get<int64_t>());
    CHECK(file.at(name).shape() == expected);
  }
  for (const auto& [name, about] : json.at("formula_checks").items()) {
    if (name == "image") continue;
    CAPTURE(name);
    const auto values = file.at(name).to_vector<float>();
    double sum = 0;
    for (float v : values) sum += v;
    CHECK(sum == doctest::Approx(about.at("sum").get<double>()).epsilon(1e-12));
    for (size_t i = 0; i < 3; ++i) CHECK(values[i] == float(about.at("first")[i].get<double>()));
  }
  CHECK(same(from_file_layout(file), model.state_dict()));
  CHECK(canonical_name("module.model.model.0.conv.weight") == "model.0.conv.weight");
  CHECK(canonical_name("model.0.conv.weight") == "model.0.conv.weight");
}

TEST_CASE("a saved model comes back, and can be read without our metadata") {
  const testing::TempFolder folder;
  YoloSeg model(parse_model_yaml("yolov8n-seg", "", 2));
  model.init(3);
  save_model(folder / "m.safetensors", model, {"circle", "square"});
  const LoadedModel back = load_model(folder / "m.safetensors");
  CHECK(back.names == std::vector<std::string>{"circle", "square"});
  CHECK(back.model->spec().name == "yolov8n-seg");
  CHECK(back.model->spec().builtin);
  CHECK(back.pretrained);
  CHECK(back.report.complete());
  CHECK(same(back.model->state_dict(), model.state_dict()));

  write_safetensors(folder / "bare.safetensors", to_file_layout(model.state_dict()));
  const LoadedModel bare = load_model(folder / "bare.safetensors");
  CHECK(bare.model->spec().scale == "n");
  CHECK(bare.model->nc() == 2);
  CHECK(bare.names == std::vector<std::string>{"0", "1"});
  CHECK(same(bare.model->state_dict(), model.state_dict()));
}

TEST_CASE("a network of the user's own keeps its description") {
  const testing::TempFolder folder;
  std::string text(builtin_model_yaml());
  text.replace(text.find("[1024, 5]"), 9, "[1024, 3]");
  std::ofstream(folder / "yolov8n-own.yaml") << text;
  LoadedModel own = load_model(folder / "yolov8n-own.yaml", {.nc = 1, .scale = "n"});
  CHECK(!own.pretrained);
  save_model(folder / "own.safetensors", *own.model, own.names);
  const LoadedModel back = load_model(folder / "own.safetensors");
  CHECK(!back.model->spec().builtin);
  CHECK(back.model->spec().layers[9].kernel == 3);
  CHECK(same(back.model->state_dict(), own.model->state_dict()));
}

TEST_CASE("transfer to another class count") {
  const testing::TempFolder folder;
  const std::map<std::string, std::array<size_t, 2>> expected{{"n", {381, 417}}, {"s", {411, 417}}, {"m", {531, 537}}};
  for (const auto& [scale, counts] : expected) {
    CAPTURE(scale);
    LoadedModel coco = load_model(fmt::format("yolov8{}-seg", scale));
    save_model(folder / "coco.safetensors", *coco.model, coco.names);
    const LoadedModel three = load_model(folder / "coco.safetensors", {3, "", 0});
    CHECK(three.model->nc() == 3);
    CHECK(three.report.matched.size() == counts[0]);
    CHECK(three.report.matched.size() + three.report.mismatched.size() + three.report.missing.size() == counts[1]);
    CHECK(three.report.missing.empty());
    CHECK(three.names.size() == 3);
    for (const auto& m : three.report.mismatched) CHECK(m.name.starts_with("model.22.cv3."));
    CHECK(three.model->state_dict().at("model.22.cv3.0.2.bias").to_vector<float>()[2] ==
          doctest::Approx(std::log(5.0 / 3 / 6400)).epsilon(1e-5));
    CHECK(three.model->state_dict().at("model.0.conv.weight").to_vector<float>() ==
          coco.model->state_dict().at("model.0.conv.weight").to_vector<float>());
  }
  const LoadedModel n = load_model("yolov8n-seg");
  save_model(folder / "n.safetensors", *n.model, n.names);
  const LoadedModel two = load_model(folder / "n.safetensors", {2, "", 0});
  CHECK(two.report.mismatched[0].in_file == Shape{80, 64, 3, 3});
}

TEST_CASE("weights: an unknown model, a missing file and a file of another network are named") {
  const testing::TempFolder folder;
  CHECK_THROWS_WITH_AS(load_model("yolov7-seg"), doctest::Contains("there is no model 'yolov7-seg'"), Error);
  CHECK_THROWS_AS(load_model(folder / "missing.safetensors"), Error);
  // A .pt whose description is no network: the complaint names the file.
  const std::string pt = (testing::golden_dir() / "pt" / "stripped.pt").string();
  CHECK_THROWS_WITH_AS(load_model(pt), doctest::Contains("stripped.pt"), Error);
  StateDict other;
  other.add("backbone.weight", Tensor::zeros({4}));
  write_safetensors(folder / "other.safetensors", other);
  CHECK_THROWS_WITH_AS(load_model(folder / "other.safetensors"),
                       doctest::Contains("the weights are of no YOLOv8 segmentation model"), Error);
}

TEST_CASE("weights: a checkpoint of a scale that there is not is refused by its own name") {
  Checkpoint c;
  c.meta.scale = " n", c.meta.nc = 2;
  const Error e = testing::error_of([&] { spec_of_checkpoint(c, "last.safetensors"); });
  CHECK(e.code() == ErrorCode::kData);
  CHECK(e.where().file == "last.safetensors");
  CHECK(testing::says(e, "there is no scale ' n'"));
}
