// What `cmake --install` leaves, as another project meets it: built against that alone, and run.
#include <algorithm>
#include <set>

#include "tests/cli/program.h"

using namespace tessera::test;

namespace {

Shell install(const Folder& f, const std::string& component) {
  return shell(
      f, fmt::format("'{}' --install '{}' --prefix '{}' --component {}", TESSERA_CMAKE, TESSERA_BINARY_DIR, f / "usr", component));
}

// Why other projects cannot be built here; empty: they can.
std::string reason_to_skip() {
  if (!fs::exists(TESSERA_CMAKE)) return "no cmake";
  if (!there_is(TESSERA_CXX)) return "no C++ compiler";
  if (!std::string_view(TESSERA_SANITIZE).empty()) return "the libraries want the sanitizer that they were built with";
  return {};
}

// Configures and builds the project in `source` against what is installed.
void build(const Folder& f, const std::string& source, const std::string& into) {
  const Shell configured =
      shell(f, fmt::format("'{}' -S '{}' -B {} -DCMAKE_PREFIX_PATH='{}' -DCMAKE_CXX_COMPILER='{}' -DCMAKE_BUILD_TYPE=Release",
                           TESSERA_CMAKE, source, into, f / "usr", TESSERA_CXX));
  INFO(configured.out);
  REQUIRE(configured.code == 0);
  const Shell built = shell(f, fmt::format("'{}' --build {} --parallel 2", TESSERA_CMAKE, into));
  INFO(built.out);
  REQUIRE(built.code == 0);
}

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
  const Folder program, development;
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
}

TEST_CASE("package: the examples build with find_package, and the network trains on the backend of the program") {
  if (const std::string why = reason_to_skip(); !why.empty()) {
    MESSAGE("skipped: " << why);
    return;
  }
  const Folder f;
  REQUIRE(install(f, "development").code == 0);
  build(f, TESSERA_SOURCE_DIR "/examples", "examples");
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
  const ShapesPicture picture = draw_shapes({.size = 64}, 0);
  LoadedModel loaded = load_model("yolov8n-seg");
  Predictor predictor(*loaded.model, loaded.names, {.imgsz = 64});
  return predictor.run(picture.image).height == 64 && open_onnx_says() ? 0 : 1;
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
target_compile_options(headers PRIVATE -Wall -Wextra -Werror -Wno-psabi)
target_link_libraries(headers PRIVATE Tessera::yolo_train Tessera::cpu Tessera::cuda)
)");
  build(f, f / "all", "build");
  const Shell ran = shell(f, "build/headers");
  INFO(ran.out);
  CHECK(ran.code == 0);
}

TEST_CASE("package: what is not there is said by name") {
  if (const std::string why = reason_to_skip(); !why.empty()) {
    MESSAGE("skipped: " << why);
    return;
  }
  const Folder f;
  REQUIRE(install(f, "development").code == 0);
  const auto configured = [&](const std::string& find) {
    f.write("p/CMakeLists.txt", "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES CXX)\n" + find + "\n");
    return shell(f, fmt::format("rm -rf b; '{}' -S p -B b -DCMAKE_PREFIX_PATH='{}' -DCMAKE_CXX_COMPILER='{}'", TESSERA_CMAKE,
                                f / "usr", TESSERA_CXX));
  };
  const Shell unknown = configured("find_package(Tessera CONFIG REQUIRED COMPONENTS nn tpu)");
  CHECK(unknown.code != 0);
  CHECK(says(unknown.out, "tpu"));
  CHECK(configured("find_package(Tessera 0.2 CONFIG REQUIRED)").code != 0);
  // A component asks for its own dependencies only.
  const Shell small =
      configured("set(CMAKE_DISABLE_FIND_PACKAGE_JPEG ON)\nfind_package(Tessera CONFIG REQUIRED COMPONENTS autograd cpu)");
  INFO(small.out);
  CHECK(small.code == 0);
}
