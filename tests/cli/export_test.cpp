// The verb export, and what it wrote as --model of val and predict.
#include <array>
#include <cmath>
#include <map>

#include "tests/cli/workshop.h"

using namespace tessera::test;

namespace {

// False, said aloud, where the program has no ONNX; it then says what to install.
bool ready(const Workshop& w) {
  const Json info = run({"info", "--json"}).json();
  const std::string onnx = info.value("onnx", "");
  if (!onnx.starts_with("not in this build")) return true;
  refused({"export", "--model", Workshop::trained()}, 2, {"cannot read or write ONNX files", "libprotobuf-dev"}, w.here());
  MESSAGE("skipped: ONNX is " << onnx);
  return false;
}

}  // namespace

TEST_CASE("cli: export writes a checked file that val and predict run") {
  const Workshop w;
  if (!ready(w)) return;
  fs::copy_file(Workshop::trained(), w / "best.safetensors");
  w.write("best.onnx.unchecked", "half of a file");
  const Outcome text = run({"export", "--model", "best.safetensors", "--imgsz", "64"}, w.here());
  INFO(text.err);
  CHECK(text.code == 0);
  CHECK(says(text.out, "best.onnx: "));
  CHECK(says(text.out, "checked: read back and run"));
  CHECK(fs::exists(w / "best.onnx"));
  CHECK(!fs::exists(w / "best.onnx.unchecked"));
  CHECK(says(text.err, "best.onnx.unchecked of an export that was stopped goes"));
  const Outcome outcome = run({"export", "--model", "best.safetensors", "--imgsz", "64", "--dynamic", "--half", "--opset", "20",
                               "--output", "out/free.onnx", "--json"},
                              w.here());
  const Json j = outcome.json();
  REQUIRE(j.is_object());
  CHECK(j["command"] == "export");
  CHECK(j["output"] == "out/free.onnx");
  CHECK(j["imgsz"] == Json({64, 64}));
  CHECK(j["opset"] == 20);
  CHECK(j["half"] == true);
  CHECK(j["dynamic"] == true);
  CHECK(j["bytes"] == fs::file_size(w / "out/free.onnx"));
  for (const char* key : {"box_px", "score", "coefficients", "prototypes"}) {
    CAPTURE(key);
    CHECK(j["difference"][key] <= j["tolerance"][key]);
    CHECK(j["fp16_difference"][key].is_number());
  }

  // The same figures and objects as the model they were made of.
  const auto val = [&](const char* model, const Arguments& more) {
    Arguments arguments = {"val", "--model", model, "--data", w / "data.yaml", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome o = run(arguments, w.here());
    INFO(described(arguments, o));
    CHECK(o.code == 0);
    const Json r = o.json();
    return Json{r["images"], r["instances"], r["box"], r["mask"]};
  };
  CHECK(val("best.onnx", {}) == val("best.safetensors", {"--imgsz", "64", "--rect", "false"}));
  CHECK(val("out/free.onnx", {})[0] == 2);
  const auto predict = [&](const char* model, const Arguments& more) {
    Arguments arguments = {"predict", "--model", model, "--source", w / "images/val", "--conf", "0", "--no-save", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome o = run(arguments, w.here());
    INFO(described(arguments, o));
    CHECK(o.code == 0);
    const Json results = o.json()["results"];
    CHECK(results.size() == 2);
    std::vector<Json> found;
    for (const Json& image : results) {
      for (const Json& d : image["detections"]) found.push_back({d["class"], d["rle"]});
    }
    return found;
  };
  const auto of_file = predict("best.onnx", {}), of_model = predict("best.safetensors", {"--imgsz", "64", "--rect", "false"});
  CHECK(of_file == of_model);
}

TEST_CASE("cli: val of a file of one size that is no square fits images into it as predict does") {
  const Workshop w;
  if (!ready(w)) return;
  // Images that go into 256 x 384 pixels without rounding; large enough for boxes that end within.
  const std::vector<std::pair<int, int>> sizes = {{128, 192}, {256, 192}, {128, 384}, {512, 384}};
  for (size_t i = 0; i < sizes.size(); ++i) {
    w.sample(fmt::format("v{}.png", i), image_png(sizes[i].first, sizes[i].second), kGoodRow, "val");
  }
  // Of one class: predict takes the best class of a place, val every class.
  const std::string data = w.write("one.yaml", "train: images/train\nval: images/val\nnames: [cat]\n"), weights = w / "runs/one/weights/best.safetensors";
  REQUIRE(run(w.train("one", {"--data", data}), w.here()).code == 0);
  REQUIRE(run({"export", "--model", weights, "--imgsz", "256,384", "--output", "wide.onnx"}, w.here()).code == 0);
  const Arguments same = {"--model", "wide.onnx", "--conf", "0", "--max-det", "20", "--project", w / "runs", "--exist-ok", "--json"};
  Arguments val = {"val", "--data", data, "--save-json"}, predict = {"predict", "--source", w / "images/val", "--no-save"};
  for (Arguments* a : {&val, &predict}) a->insert(a->end(), same.begin(), same.end());
  const Outcome validated = run(val, w.here()), predicted = run(predict, w.here());
  INFO(validated.err, predicted.err);
  REQUIRE(validated.code == 0);
  REQUIRE(predicted.code == 0);
  CHECK(validated.json()["images"] == 4);
  std::map<std::string, std::vector<Json>> by_image;
  for (const Json& r : Json::parse(content(w / "runs/val/predictions.json"))) by_image[r["image_id"]].push_back(r);
  const Json results = predicted.json()["results"];
  REQUIRE(results.size() == 4);
  int64_t within = 0;  // sides of boxes
  for (size_t n = 0; n < results.size(); ++n) {
    const std::vector<Json>& records = by_image[fs::path(results[n]["image"].get<std::string>()).stem().string()];
    const Json& detections = results[n]["detections"];
    REQUIRE(records.size() == detections.size());
    CHECK(records.size() == 20);
    for (size_t i = 0; i < records.size(); ++i) {
      const Json &found = detections[i], &record = records[i];
      CAPTURE(record.dump());
      CHECK(found["confidence"].get<double>() == doctest::Approx(record["score"].get<double>()).epsilon(1e-2));
      const double x = record["bbox"][0], y = record["bbox"][1], width = record["bbox"][2], height = record["bbox"][3];
      const std::array<double, 4> box = {x, y, x + width, y + height};
      const std::array<double, 4> limit = {0, 0, double(sizes[n].second), double(sizes[n].first)};
      for (size_t k = 0; k < 4; ++k) {
        CHECK(std::abs(found["box"][k].get<double>() - box[k]) < 0.01);
        within += std::abs(box[k] - limit[k]) > 1;
      }
    }
  }
  CHECK(within > 20);
}

TEST_CASE("cli: export refuses what it does not write, with the way there") {
  const Workshop w;
  if (!ready(w)) return;
  const std::string model = Workshop::trained();
  const auto no = [&](const Arguments& more, int code, const std::vector<std::string>& parts) {
    Arguments arguments = {"export", "--model", model, "--output", "x.onnx"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    CAPTURE(more);
    refused(arguments, code, parts, w.here());
    CHECK(!fs::exists(w / "x.onnx"));
  };
  no({"--format", "engine"}, 2, {"only onnx is written", "trtexec"});
  no({"--format", "TensorRT"}, 2, {"trtexec"});
  no({"--format", "openvino"}, 2, {"ovc best.onnx"});
  no({"--format", "coreml"}, 2, {"coremltools"});
  no({"--format", "word"}, 2, {"there is no such format", "--format onnx"});
  no({"--imgsz", "100"}, 2, {"imgsz=100 is not a multiple of 32", "128"});
  no({"--imgsz", "64,"}, 2, {"imgsz=64,: expected one whole number, or height,width"});
  no({"--nms"}, 2, {"suppression is not part of the file"});
  no({"--output", "data.yaml/x.onnx"}, 6, {"data.yaml: cannot create the folder"});
  no({"--output", "images"}, 2, {"this is a folder", "name the file: images/best.onnx"});
  no({"--output", "new/"}, 2, {"this is a folder", "name the file: new/best.onnx"});
  CHECK(!fs::exists(w / "new"));
  CHECK(run({"export", "--model", model, "--opset", "12"}, w.here()).code == 2);
  refused({"export"}, 2, {"--model is missing"}, w.here());
  refused({"export", "--model", "best.onnx"}, 2, {"best.onnx: an .onnx file is a finished network"}, w.here());
  refused({"train", "--model", "best.onnx", "--data", w / "data.yaml"}, 2, {"a finished network"}, w.here());
}

TEST_CASE("cli: damaged .onnx files and sizes that they do not take are refused by name") {
  const Workshop w;
  if (!ready(w)) return;
  const std::string file = w / "best.onnx";
  CHECK(run({"export", "--model", Workshop::trained(), "--imgsz", "64,96", "--output", file}, w.here()).code == 0);
  const std::string data = w / "data.yaml", source = w / "images/val";
  refused({"val", "--model", file, "--data", data, "--imgsz", "64"}, 2, {"imgsz=64: the file takes 64 x 96 only", "--dynamic"}, w.here());
  refused({"predict", "--model", file, "--source", source, "--imgsz", "64"}, 2, {"imgsz=64: the file takes 64 x 96 only", "--dynamic"}, w.here());
  refused({"predict", "--model", file, "--source", source, "--precision", "bf16"}, 2, {"runs here with fp32 only"}, w.here());
  CHECK(run({"predict", "--model", file, "--source", source}, w.here()).code == 0);
  const std::string good = content(file);
  const auto bad = [&](const std::string& bytes) {
    const std::string name = w.write("bad.onnx", bytes);
    refused({"predict", "--model", name, "--source", source}, 3, {name + ": "}, w.here());
    refused({"val", "--model", name, "--data", data}, 3, {name + ": "}, w.here());
  };
  bad("");
  bad("no model");
  for (const size_t length : {size_t(7), size_t(2000), good.size() / 2, good.size() - 1}) bad(good.substr(0, length));
  for (const size_t at : {good.size() / 3, good.size() / 2, good.size() * 3 / 4}) {  // in weights
    std::string flipped = good;
    flipped[at] = char(flipped[at] ^ 16);
    bad(flipped);
  }
  refused({"predict", "--model", w / "absent.onnx", "--source", source}, 3, {"absent.onnx"}, w.here());
}
