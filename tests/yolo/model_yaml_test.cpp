#include "yolo/model_yaml.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tensor/base/check.h"
#include "tests/support/temp_folder.h"

using namespace tessera;

namespace {

std::vector<int64_t> outputs(const ModelSpec& spec) {
  std::vector<int64_t> out;
  for (const LayerSpec& layer : spec.layers) out.push_back(layer.out);
  return out;
}

// The error that a changed copy of the built-in yaml gives.
Error error_of(const std::string& from, const std::string& to) {
  std::string text(builtin_model_yaml());
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
  try {
    parse_model_text(text, "changed.yaml", "n", 0);
  } catch (const Error& e) {
    return e;
  }
  return Error(ErrorCode::kBug, "no error");
}

}  // namespace

TEST_CASE("channel and repeat rules") {
  CHECK(scaled_channels(64, 0.25, 1024, 80) == 16);
  CHECK(scaled_channels(1024, 0.75, 768, 80) == 576);  // capped before the width factor
  CHECK(scaled_channels(1024, 1.25, 512, 80) == 640);
  CHECK(scaled_channels(256, 0.25, 1024, 256) == 256);  // the quirk
  CHECK(scaled_channels(60, 0.25, 1024, 80) == 16);     // rounded up to a multiple of 8
  CHECK(scaled_repeats(3, 0.33) == 1);
  CHECK(scaled_repeats(6, 0.33) == 2);
  CHECK(scaled_repeats(6, 0.67) == 4);
  CHECK(scaled_repeats(1, 0.33) == 1);
  CHECK(scaled_repeats(5, 0.5) == 2);  // 2.5: ties to even
}

TEST_CASE("built-in scales resolve to the table of the specification") {
  const ModelSpec n = parse_model_yaml("yolov8n-seg");
  CHECK(n.builtin);
  CHECK(n.name == "yolov8n-seg");
  CHECK(n.scale == "n");
  CHECK(n.nc == 80);
  CHECK(n.warnings.empty());
  CHECK(outputs(n) == std::vector<int64_t>{16,  32,  32,  64, 64, 128, 128, 256, 256, 256, 256, 384,
                                           128, 128, 192, 64, 64, 192, 128, 128, 384, 256, 0});
  CHECK(n.layers[4].repeats == 2);
  CHECK(n.layers[2].shortcut);
  CHECK(!n.layers[12].shortcut);
  CHECK(n.layers[11].from == std::vector<int64_t>{10, 6});
  CHECK(n.layers[0].from == std::vector<int64_t>{-1});
  CHECK(n.layers[22].prototype_width == 64);
  CHECK(n.layers[0].arguments == "[3, 16, 3, 2]");
  CHECK(n.layers[22].arguments == "[80, 32, 64, [64, 128, 256]]");

  const ModelSpec m = parse_model_yaml("yolov8m-seg.yaml", "", 3);
  CHECK(m.nc == 3);
  CHECK(outputs(m) == std::vector<int64_t>{48,  96,  96,  192, 192, 384, 384, 576, 576, 576, 576, 960,
                                           384, 384, 576, 192, 192, 576, 384, 384, 960, 576, 0});
  CHECK(parse_model_yaml("yolov8-seg", "x").name == "yolov8x-seg");

  const ModelSpec first = parse_model_yaml("yolov8-seg.yaml");
  CHECK(first.scale == "n");
  CHECK(first.warnings.size() == 1);
}

TEST_CASE("a class count equal to a base width leaves that width unscaled") {
  const ModelSpec spec = parse_model_yaml("yolov8n-seg", "", 256);
  for (size_t i : {3, 4, 15, 16}) CHECK(spec.layers[i].out == 256);
  CHECK(spec.layers[22].prototype_width == 64);
  CHECK(parse_model_yaml("yolov8n-seg", "", 64).layers[0].out == 64);
}

TEST_CASE("model yamls of users") {
  const testing::TempFolder folder;
  folder.write("yolov8-seg.yaml", builtin_model_yaml());
  const ModelSpec s = parse_model_yaml((folder / "yolov8s-seg.yaml").string());
  CHECK(!s.builtin);
  CHECK(s.scale == "s");
  CHECK(s.layers[0].out == 32);
  CHECK(parse_model_yaml((folder / "yolov8-seg.yaml").string(), "l").layers[0].out == 64);
}

TEST_CASE("errors name the place and the remedy") {
  const Error module = error_of("SPPF", "SPPCSPC");
  CHECK(module.code() == ErrorCode::kData);
  CHECK(module.where().file == "changed.yaml");
  CHECK(module.where().line == 23);
  CHECK(module.where().column == 13);
  CHECK(module.message() == "unknown module 'SPPCSPC'");
  CHECK(module.hint() == "known modules: C2f, Concat, Conv, SPPF, Segment, Upsample");

  CHECK(error_of("[64, 3, 2]", "[many, 3, 2]").message() == "channels must be a whole number");
  CHECK(error_of("[64, 3, 2]", "[]").message() == "argument 1 (channels) is missing");
  CHECK(error_of("[15, 18, 21]", "[15, 18]").message() == "Segment takes 3 feature maps, got 2");
  CHECK(error_of("[-1, 6], 1, Concat", "[-1, 60], 1, Concat").message() == "from is 60, allowed are -12 to 10");
  CHECK(error_of("nc: 80", "classes: 80").message() == "'nc', the number of classes, is missing");
  CHECK(error_of("backbone:", "backbone: [").code() == ErrorCode::kData);
  CHECK(error_of("  n: [0.33", "  n: [x").where().line == 6);
  CHECK_THROWS_WITH_AS(parse_model_yaml("yolov9n-seg"), doctest::Contains("there is no model 'yolov9n-seg'"), Error);
  CHECK_THROWS_WITH_AS(parse_model_yaml("yolov8n-seg", "q"), doctest::Contains("known scales: n, s, m, l, x"), Error);
}
