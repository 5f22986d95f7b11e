// Holds the direction of dependencies: which folder may include which (docs/architecture.md), and that code is small enough to
// read.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

// Rooms, most specific first; each may include itself and what it lists.
const std::vector<std::pair<std::string, std::set<std::string>>> kRooms = {
    {"tensor/base", {}},
    {"tensor/ref", {"tensor/base", "tensor"}},
    {"tensor/cpu", {"tensor/base", "tensor", "tensor/ref"}},
    {"tensor", {"tensor/base"}},
    {"cuda", {"tensor/base", "tensor"}},
    {"autograd", {"tensor/base", "tensor"}},
    {"nn/io", {"tensor/base", "tensor"}},
    {"nn", {"tensor/base", "tensor", "autograd", "nn/io"}},
    {"data", {"tensor/base", "tensor"}},
    {"yolo/report", {"tensor/base", "tensor", "data", "yolo"}},
    {"yolo/eval", {"tensor/base", "tensor", "autograd", "nn", "nn/io", "data", "yolo"}},
    {"yolo/train", {"tensor/base", "tensor", "autograd", "nn", "nn/io", "data", "yolo", "yolo/eval", "yolo/report"}},
    {"yolo", {"tensor/base", "tensor", "autograd", "nn", "nn/io", "data"}},
    {"capi", {"tensor/base", "tensor", "tensor/cpu", "data", "yolo", "yolo/eval"}},
    {"tools",
     {"tensor/base", "tensor", "tensor/cpu", "cuda", "autograd", "nn", "nn/io", "data", "yolo", "yolo/eval", "yolo/report",
      "yolo/train"}},
};

std::string room_of(const std::string& path) {
  for (const auto& [room, uses] : kRooms) {
    if (path.rfind(room + "/", 0) == 0) return room;
  }
  return {};
}

std::vector<fs::path> sources(const fs::path& root) {
  std::vector<fs::path> files;
  for (const char* top : {"tensor", "cuda", "autograd", "nn", "data", "yolo", "capi", "tools"}) {
    if (!fs::exists(root / top)) continue;
    for (const auto& e : fs::recursive_directory_iterator(root / top)) {
      const std::string ext = e.path().extension().string();
      if (ext == ".h" || ext == ".cpp" || ext == ".cu" || ext == ".cuh") files.push_back(e.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

TEST_CASE("includes follow the direction of the house") {
  const fs::path root = TESSERA_SOURCE_DIR;
  const std::regex include(R"re(^\s*#\s*include\s+"([^"]+)")re");
  size_t checked = 0;
  for (const fs::path& file : sources(root)) {
    const std::string name = fs::relative(file, root).generic_string();
    const std::string room = room_of(name);
    std::ifstream in(file);
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      const std::string target = room_of(match[1].str());
      if (target.empty() || target == room) continue;
      ++checked;
      const auto rule = std::find_if(kRooms.begin(), kRooms.end(), [&](const auto& r) { return r.first == room; });
      INFO(name << ":" << number << " includes " << match[1].str() << ": " << room << " may not use " << target);
      CHECK(rule->second.count(target) == 1);
    }
  }
  CHECK(checked > 100);
}

// Upper layers reach the GPU through tensor/backend.h, so a build without CUDA only drops a folder: of cuda/ the program sees one
// header. And headers of the toolkit stay inside cuda/, so that everything else compiles without it.
TEST_CASE("cuda/ is entered by one door") {
  const fs::path root = TESSERA_SOURCE_DIR;
  const std::regex door(R"re(^\s*#\s*include\s+"cuda/([^"]+)")re");
  const std::regex toolkit(R"re(^\s*#\s*include\s+<(cuda|cudnn|cublas|nccl)[^>]*>)re");
  const std::regex chevrons(R"re(<<<)re");
  for (const fs::path& file : sources(root)) {
    const std::string name = fs::relative(file, root).generic_string();
    const bool inside = room_of(name) == "cuda";
    std::ifstream in(file);
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
      INFO(name << ":" << number << ": " << line);
      std::smatch match;
      if (!inside && std::regex_search(line, match, door)) {
        const bool allowed = room_of(name) == "tools" && match[1] == "install.h";
        CHECK(allowed);
      }
      if (std::regex_search(line, toolkit)) CHECK(inside);
      const bool source = line.find("//") == std::string::npos && line.find('"') == std::string::npos;
      if (source && std::regex_search(line, chevrons)) FAIL_CHECK("kernels are started by launch() of cuda/launch.cuh");
    }
  }
}

TEST_CASE("no source is longer than a reader can follow") {
  const fs::path root = TESSERA_SOURCE_DIR;
  for (const fs::path& file : sources(root)) {
    std::ifstream in(file);
    int lines = 0;
    for (std::string line; std::getline(in, line);) ++lines;
    INFO(file.string() << " has " << lines << " lines");
    CHECK(lines <= 700);
  }
}
