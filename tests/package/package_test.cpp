// What `cmake --install` leaves, as another project meets it: built against that alone, and run.
#include <algorithm>
#include <cmath>
#include <set>

#include "data/rle.h"
#include "data/shapes.h"
#include "tests/cli/program.h"
#include "tests/yolo/formula_model.h"
#include "yolo/io/weights.h"

using namespace tessera::test;

namespace {

Shell install(const Folder& f, const std::string& component) {
  return shell(
      f, fmt::format("'{}' --install '{}' --prefix '{}' --component {}", TESSERA_CMAKE, TESSERA_BINARY_DIR, f / "usr", component));
}

// Why other projects cannot be built here; empty: they can.
std::string reason_to_skip() {
  if (!fs::exists(TESSERA_CMAKE)) return "no cmake";
  if (!there_is(TESSERA_CXX) || !there_is(TESSERA_CC)) return "no compiler";
  if (!std::string_view(TESSERA_SANITIZE).empty()) return "the libraries want the sanitizer that they were built with";
  return {};
}

Shell configured(const Folder& f, const std::string& source, const std::string& into) {
  return shell(
      f, fmt::format(
             "CFLAGS='-std=c99 -Wall -Wextra -Wpedantic -Werror' CXXFLAGS='-Wall -Wextra -Werror -Wno-psabi' '{}' -S '{}' -B {} "
             "-DCMAKE_PREFIX_PATH='{}' -DCMAKE_C_COMPILER='{}' -DCMAKE_CXX_COMPILER='{}' -DCMAKE_BUILD_TYPE=Release",
             TESSERA_CMAKE, source, into, f / "usr", TESSERA_CC, TESSERA_CXX));
}

// Configures and builds the project in `source` against what is installed.
void build(const Folder& f, const std::string& source, const std::string& into) {
  const Shell ready = configured(f, source, into);
  INFO(ready.out);
  REQUIRE(ready.code == 0);
  const Shell built = shell(f, fmt::format("'{}' --build {} --parallel 2", TESSERA_CMAKE, into));
  INFO(built.out);
  REQUIRE(built.code == 0);
}

// A model and an image in the folder, and what predict --json says of them.
struct PredictTask {
  std::string model, image_file;
  tessera::Image image = tessera::draw_shapes({.size = 96}, 0).image;
  Json objects;

  explicit PredictTask(const Folder& f) : model(f / "small.safetensors"), image_file(f / "image.ppm") {
    tessera::YoloSeg network(tessera::parse_model_yaml("yolov8n-seg", "", 3));
    tessera::testing::set_formula_weights(network);
    tessera::save_model(model, network, {"cat", "dog", "bird"});
    std::string text = fmt::format("P6 {} {} 255\n", image.width, image.height);
    text.append(image.pixels.begin(), image.pixels.end());
    f.write("image.ppm", text);
    const Outcome outcome =
        run({"predict", "--model", model, "--source", image_file, "--max-det", "20", "--save", "false", "--json"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    objects = outcome.json()["results"][0]["detections"];
    REQUIRE(objects.size() > 5);
  }

  // What examples/predict prints: the same objects, to the digits that it shows.
  void check(const std::string& printed) const {
    INFO(printed);
    std::istringstream lines(printed);
    size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      REQUIRE(count < objects.size());
      const Json& o = objects[count];
      std::istringstream words(line);
      std::string name, label;
      double score = 0, corners[4] = {};
      int64_t area = 0;
      words >> name >> score >> label;
      for (double& v : corners) words >> v;
      words >> label >> area;
      CHECK(name == o["name"]);
      CHECK(std::abs(score - o["confidence"].get<double>()) < 6e-5);
      for (size_t i = 0; i < 4; ++i) CHECK(std::abs(corners[i] - o["box"][i].get<double>()) < 0.06);
      CHECK(area == tessera::rle_area(tessera::rle_from_string(o["rle"]["counts"].get<std::string>(), image.height, image.width)));
    }
    CHECK(count == objects.size());
  }
};

std::set<std::string> files_below(const fs::path& root) {
  std::set<std::string> files;
  if (!fs::exists(root)) return files;
  for (const auto& e : fs::recursive_directory_iterator(root)) {
    if (!e.is_directory()) files.insert(fs::relative(e.path(), root).generic_string());
  }
  return files;
}

}  // namespace

TEST_CASE("package: program and development are installed apart, and no header of others") {
  if (!fs::exists(TESSERA_CMAKE)) {
    MESSAGE("skipped: no cmake");
    return;
  }
  const Folder program, development, library;
  REQUIRE(install(program, "program").code == 0);
  CHECK(fs::exists(program / "usr/bin/tessera"));
  for (const std::string& file : files_below(program / "usr")) {
    CAPTURE(file);
    CHECK_FALSE((file.ends_with(".a") || file.ends_with(".h") || file.ends_with(".cmake")));
  }
  REQUIRE(install(development, "development").code == 0);
  CHECK_FALSE(fs::exists(development / "usr/bin"));
  const std::set<std::string> headers = files_below(development / "usr/include/tessera");
  CHECK(headers.count("tensor/tensor.h") == 1);
  CHECK(headers.count("yolo/train/trainer.h") == 1);
  for (const std::string& file : headers) {
    CAPTURE(file);
    CHECK(fs::exists(fs::path(TESSERA_SOURCE_DIR) / file));
  }
  CHECK(files_below(development / "usr/include").size() == headers.size());  // no bare tensor/ beside other people's
  REQUIRE(install(library, "library").code == 0);
  CHECK(files_below(library / "usr/include") == std::set<std::string>{"tessera.h"});
}

TEST_CASE("package: the examples build with find_package, train on the backend of the program and find what it finds") {
  if (const std::string why = reason_to_skip(); !why.empty()) {
    MESSAGE("skipped: " << why);
    return;
  }
  const Folder f;
  REQUIRE(install(f, "development").code == 0);
  REQUIRE(install(f, "library").code == 0);
  build(f, TESSERA_SOURCE_DIR "/examples", "examples");
  const PredictTask task(f);
  task.check(shell(f, fmt::format("examples/predict '{}' '{}'", task.model, task.image_file)).out);
  const Shell trained = shell(f, "examples/train 20");
  INFO(trained.out);
  REQUIRE(trained.code == 0);
  // The kernels are not lost on the way through a static library.
  const std::string active = run({"info", "--json"}).json()["active_backend"];
  CHECK(says(trained.out, "backend " + active + "\n"));
  std::vector<double> losses;
  std::istringstream lines(trained.out);
  for (std::string line; std::getline(lines, line);) {
    if (const size_t at = line.find("loss "); at != std::string::npos) losses.push_back(std::stod(line.substr(at + 5)));
  }
  REQUIRE(losses.size() == 20);
  CHECK(losses.back() < losses.front() / 2);
}

// Of one project that knows C++ only: what is linked is found without the language C too.
TEST_CASE("package: every installed header needs installed ones only, and every library links") {
  if (const std::string why = reason_to_skip(); !why.empty()) {
    MESSAGE("skipped: " << why);
    return;
  }
  const Folder f;
  REQUIRE(install(f, "development").code == 0);
  std::string source;
  for (const std::string& header : files_below(f / "usr/include/tessera")) source += fmt::format("#include \"{}\"\n", header);
  source += R"(
using namespace tessera;
int main() {
  install_cpu_backends();
  fmt::print("{}; {} ranks; {}\n", describe_cuda(), single_process().size(), available_backends().size());
  const ShapesSample sample = draw_shapes({.size = 64}, 0);
  LoadedModel loaded = load_model("yolov8n-seg");
  Predictor predictor(*loaded.model, loaded.names, {.imgsz = 64});
  return predictor.run(sample.image).height == 64 && open_onnx_says() ? 0 : 1;
}
)";
  const std::string open_onnx = R"(
static bool open_onnx_says() {
  try {
    tessera::OnnxNetwork network("none.onnx");
  } catch (const tessera::Error& e) {
    fmt::print("{}\n", e.what());
    return true;
  }
  return false;
}
)";
  source.insert(source.find("\nusing namespace"), open_onnx);
  f.write("all/all.cpp", source);
  f.write("all/CMakeLists.txt", R"(
cmake_minimum_required(VERSION 3.20)
project(all_headers LANGUAGES CXX)
find_package(Tessera 0.1 CONFIG REQUIRED)
add_executable(headers all.cpp)
target_link_libraries(headers PRIVATE Tessera::yolo_train Tessera::cpu Tessera::cuda)
)");
  build(f, f / "all", "build");
  const Shell ran = shell(f, "build/headers");
  INFO(ran.out);
  CHECK(ran.code == 0);
}

TEST_CASE("package: the shared library alone serves C, by CMake and by pkg-config") {
  if (const std::string why = reason_to_skip(); !why.empty()) {
    MESSAGE("skipped: " << why);
    return;
  }
  const Folder f;
  REQUIRE(install(f, "library").code == 0);
  const PredictTask task(f);
  f.write("p/CMakeLists.txt", R"(
cmake_minimum_required(VERSION 3.20)
project(p LANGUAGES C)
find_package(Tessera CONFIG REQUIRED COMPONENTS capi)
add_executable(predict predict.c)
target_link_libraries(predict PRIVATE Tessera::capi)
)");
  fs::copy_file(TESSERA_SOURCE_DIR "/examples/predict.c", f / "p/predict.c");
  build(f, f / "p", "b");
  task.check(shell(f, fmt::format("b/predict '{}' '{}'", task.model, task.image_file)).out);
  const Shell refused = shell(f, fmt::format("b/predict none.safetensors '{}'", task.image_file));
  CHECK(refused.code == 1);
  CHECK(says(refused.out, "predict: none.safetensors: "));
  if (!there_is("pkg-config")) {
    MESSAGE("skipped: no pkg-config");
    return;
  }
  const std::set<std::string> files = files_below(f / "usr");
  const auto pc = std::find_if(files.begin(), files.end(), [](const std::string& file) { return file.ends_with("/tessera.pc"); });
  REQUIRE(pc != files.end());
  const std::string folder = fs::path(f / ("usr/" + *pc)).parent_path().string();
  const Shell by_hand =
      shell(f, fmt::format("export PKG_CONFIG_PATH='{0}' LD_LIBRARY_PATH='{0}/..' && '{1}' p/predict.c -o by_hand "
                           "$(pkg-config --cflags --libs tessera) && ./by_hand '{2}' '{3}'",
                           folder, TESSERA_CC, task.model, task.image_file));
  task.check(by_hand.out);
}

TEST_CASE("package: what is not there is said by name") {
  if (const std::string why = reason_to_skip(); !why.empty()) {
    MESSAGE("skipped: " << why);
    return;
  }
  const Folder f;
  REQUIRE(install(f, "development").code == 0);
  const auto finding = [&](const std::string& find) {
    fs::remove_all(f / "b");
    f.write("p/CMakeLists.txt", "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES CXX)\n" + find + "\n");
    return configured(f, f / "p", "b");
  };
  const Shell unknown = finding("find_package(Tessera CONFIG REQUIRED COMPONENTS nn tpu)");
  CHECK(unknown.code != 0);
  CHECK(says(unknown.out, "tpu"));
  CHECK(finding("find_package(Tessera 0.2 CONFIG REQUIRED)").code != 0);
  // A component asks for its own dependencies only.
  const Shell small =
      finding("set(CMAKE_DISABLE_FIND_PACKAGE_JPEG ON)\nfind_package(Tessera CONFIG REQUIRED COMPONENTS autograd cpu)");
  INFO(small.out);
  CHECK(small.code == 0);
}
