// Holds the documents that teach to the code: every op has a page; every path, link, note, switch and test case that docs/ops and
// docs/tour name exists, and so do the paths of the documents to begin with; the code blocks of the tour are parts of its programs,
// those of docs/library.md parts of examples/.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

const fs::path kRoot = TESSERA_SOURCE_DIR;
using Problems = std::vector<std::string>;

std::string read(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

template <class F>
void for_each_match(const std::string& text, const std::regex& pattern, F&& f) {
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) f(*it);
}

std::vector<fs::path> pages_in(const char* folder) {
  std::vector<fs::path> pages;
  for (const auto& e : fs::directory_iterator(kRoot / "docs" / folder)) {
    if (e.path().extension() == ".md") pages.push_back(e.path());
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

// All sources and build files as one text.
const std::string& sources() {
  static const std::string text = [] {
    std::string all = read(kRoot / "CMakeLists.txt");
    for (const char* top : {"tensor", "cuda", "autograd", "nn", "data", "yolo", "capi", "tools", "cmake", "bench"}) {
      for (const auto& e : fs::recursive_directory_iterator(kRoot / top)) {
        const std::string ext = e.path().extension().string();
        if (ext == ".h" || ext == ".cpp" || ext == ".cu" || ext == ".cuh" || ext == ".cmake") all += read(e.path());
      }
    }
    return all;
  }();
  return text;
}

// ---- paths

Problems missing_paths(const std::string& text) {
  static const std::regex path(
      R"re((^|[^\w./-])((?:tensor|cuda|autograd|nn|data|yolo|capi|tools|tests|bench|docs|cmake|examples)/[\w./-]*))re");
  Problems problems;
  for_each_match(text, path, [&](const std::smatch& m) {
    std::string name = m[2];
    while (!name.empty() && (name.back() == '.' || name.back() == '-')) name.pop_back();  // the end of a sentence
    if (!fs::exists(kRoot / name)) problems.push_back(name);
  });
  return problems;
}

// ---- links: [text](file#heading) from the page's own folder, or [text](#heading)

std::string anchor_of(std::string heading) {
  std::string anchor;
  for (char c : heading) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_') anchor += char(std::tolower(c));
    if (c == ' ') anchor += '-';
  }
  return anchor;
}

std::set<std::string> anchors_of(const fs::path& page) {
  static const std::regex heading(R"re(^#+ +(.*)$)re");
  std::set<std::string> anchors;
  for (const std::string& line : lines_of(read(page))) {
    std::smatch m;
    if (std::regex_match(line, m, heading)) anchors.insert(anchor_of(m[1]));
  }
  return anchors;
}

Problems broken_links(const std::string& text, const fs::path& page) {
  static const std::regex link(R"re(\]\(([^)\s]+)\))re");
  Problems problems;
  for_each_match(text, link, [&](const std::smatch& m) {
    const std::string target = m[1];
    if (target.rfind("https:", 0) == 0) return;
    const size_t hash = target.find('#');
    const fs::path file = hash == 0 ? page : page.parent_path() / target.substr(0, hash);
    if (!fs::exists(file)) return problems.push_back(target);
    if (hash != std::string::npos && anchors_of(file).count(target.substr(hash + 1)) == 0) problems.push_back(target);
  });
  return problems;
}

// ---- Note [..] of a source, TESSERA_... switches and macros

Problems unknown_names(const std::string& text) {
  static const std::regex note(R"re(Note \[[^\]]+\])re"), name(R"re(TESSERA_[A-Z0-9_]+)re");
  Problems problems;
  for_each_match(text, note, [&](const std::smatch& m) {
    if (sources().find(m.str() + ":") == std::string::npos) problems.push_back(m.str());
  });
  for_each_match(text, name, [&](const std::smatch& m) {
    if (sources().find(m.str()) == std::string::npos) problems.push_back(m.str());
  });
  return problems;
}

// ---- test_NAME -tc="pattern,pattern": cases of tests/NAME, as doctest understands it

bool matches(const char* name, const char* pattern) {
  if (*pattern == '\0') return *name == '\0';
  if (*pattern == '*') return matches(name, pattern + 1) || (*name != '\0' && matches(name + 1, pattern));
  return *name != '\0' && (*pattern == '?' || std::tolower(*name) == std::tolower(*pattern)) && matches(name + 1, pattern + 1);
}

const std::vector<std::string>& cases_of(const std::string& program) {
  static std::map<std::string, std::vector<std::string>> known;
  const auto [it, fresh] = known.try_emplace(program);
  // Of one folder there are two programs: test_cuda_host_checked has the cases of cuda_host with every access checked.
  const fs::path folder = kRoot / "tests" / (program == "cuda_host_checked" ? "cuda_host" : program);
  if (!fresh || !fs::exists(folder)) return it->second;
  static const std::regex test_case(R"re(TEST_CASE\("((?:[^"\\]|\\.)*)")re");
  for (const auto& e : fs::directory_iterator(folder)) {
    if (e.path().extension() != ".cpp") continue;
    for_each_match(read(e.path()), test_case, [&](const std::smatch& m) { it->second.push_back(m[1]); });
  }
  return it->second;
}

Problems missing_cases(const std::string& text) {
  static const std::regex command(R"re(test_(\w+)[^;\n`]*?(?:-tc|--test-case)=(["'])(.*?)\2)re");
  Problems problems;
  for_each_match(text, command, [&](const std::smatch& m) {
    std::istringstream patterns(m[3].str());
    for (std::string pattern; std::getline(patterns, pattern, ',');) {
      const auto& cases = cases_of(m[1]);
      const auto fits = [&](const std::string& name) { return matches(name.c_str(), pattern.c_str()); };
      if (std::none_of(cases.begin(), cases.end(), fits)) problems.push_back("test_" + m[1].str() + ": " + pattern);
    }
  });
  return problems;
}

// ---- code blocks of a chapter: runs of lines of its program; a block may be indented less

bool stands_at(const std::vector<std::string>& block, const std::vector<std::string>& program, size_t line) {
  if (line + block.size() > program.size() || program[line].size() < block[0].size()) return false;
  const std::string indent = program[line].substr(0, program[line].size() - block[0].size());
  if (indent.find_first_not_of(' ') != std::string::npos) return false;
  for (size_t i = 0; i < block.size(); ++i) {
    if (program[line + i] != (block[i].empty() ? "" : indent + block[i])) return false;
  }
  return true;
}

Problems strange_code(const std::string& page, const std::string& program_text) {
  const std::vector<std::string> program = lines_of(program_text);
  Problems problems;
  bool inside = false;
  std::vector<std::string> block;
  for (const std::string& text : lines_of(page)) {
    if (!inside) {
      inside = text == "```cpp" || text == "```c" || text == "```cmake";
      block.clear();
    } else if (text != "```") {
      block.push_back(text);
    } else {
      inside = false;
      size_t at = 0;
      while (at < program.size() && (block.empty() || !stands_at(block, program, at))) ++at;
      if (at == program.size()) problems.push_back(block.empty() ? "an empty block" : "block of '" + block[0] + "'");
    }
  }
  return problems;
}

void check_none(const Problems& problems, const fs::path& page, const std::string& what) {
  const std::string name = fs::relative(page, kRoot).generic_string();
  for (const std::string& p : problems) FAIL_CHECK(name << ": " << what << ": " << p);
}

}  // namespace

TEST_CASE("docs/ops and docs/tour name what exists") {
  size_t pages = 0;
  for (const char* folder : {"ops", "tour"}) {
    for (const fs::path& page : pages_in(folder)) {
      const std::string text = read(page);
      ++pages;
      check_none(missing_paths(text), page, "no such path");
      check_none(broken_links(text, page), page, "broken link");
      check_none(unknown_names(text), page, "not in the sources");
      check_none(missing_cases(text), page, "no such test case");
    }
  }
  CHECK(pages > 25);
}

TEST_CASE("links of all documents lead somewhere, and the commands that show a claim name a test case") {
  std::vector<fs::path> pages = {kRoot / "README.md", kRoot / "CONTRIBUTING.md"};
  for (const char* folder : {".", "adr"}) {
    for (const fs::path& page : pages_in(folder)) pages.push_back(page);
  }
  CHECK(pages.size() > 15);
  for (const fs::path& page : pages) {
    const std::string text = read(page);
    check_none(broken_links(text, page), page, "broken link");
    check_none(missing_cases(text), page, "no such test case");
  }
}

TEST_CASE("the documents to begin with name what exists") {
  for (const char* name : {"README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/library.md"}) {
    check_none(missing_paths(read(kRoot / name)), kRoot / name, "no such path");
  }
}

TEST_CASE("every op has a page") {
  std::string pages;
  for (const fs::path& page : pages_in("ops")) {
    if (page.filename() != "README.md") pages += read(page);
  }
  static const std::regex family(R"re(class \w+Ops \{)re");
  static const std::regex method(R"re(virtual (?:void|double|bool) (\w+)\([^;{]*= 0;)re");
  size_t families = 0, methods = 0;
  for (const auto& e : fs::directory_iterator(kRoot / "tensor" / "ops")) {
    const std::string header = read(e.path());
    if (e.path().extension() != ".h" || !std::regex_search(header, family)) continue;
    ++families;
    const std::string name = fs::relative(e.path(), kRoot).generic_string();
    CHECK_MESSAGE(pages.find("`" + name + "`") != std::string::npos, name, " has no page in docs/ops");
    for_each_match(header, method, [&](const std::smatch& m) {
      ++methods;
      const std::regex word("\\b" + m[1].str() + "\\b");
      CHECK_MESSAGE(std::regex_search(pages, word), m[1].str(), " of ", name, " is on no page of docs/ops");
    });
  }
  CHECK(families > 10);
  CHECK(methods > 30);
}

TEST_CASE("a page of docs/ops has its parts and is short, and the index lists it") {
  const std::string index = read(kRoot / "docs" / "ops" / "README.md");
  for (const fs::path& page : pages_in("ops")) {
    const std::string name = page.filename().string();
    if (name == "README.md") continue;
    INFO(name);
    const std::string text = read(page);
    CHECK(index.find("(" + name + ")") != std::string::npos);
    for (const char* part : {"## Formula", "## Cost", "## Where it lies", "## Choices and traps", "ests"}) {
      INFO(part);
      CHECK(text.find(part) != std::string::npos);
    }
    CHECK(lines_of(text).size() <= 90);
  }
}

TEST_CASE("the tour's text shows the code of its programs") {
  const std::string index = read(kRoot / "docs" / "tour" / "README.md");
  size_t chapters = 0;
  for (const fs::path& page : pages_in("tour")) {
    if (page.filename() == "README.md") continue;
    ++chapters;
    const fs::path program = fs::path(page).replace_extension(".cpp");
    const std::string name = page.filename().string();
    INFO(name);
    CHECK(index.find("(" + name + ")") != std::string::npos);
    REQUIRE(fs::exists(program));
    const std::string text = read(page);
    CHECK(text.find("```cpp") != std::string::npos);
    check_none(strange_code(text, read(program)), page, "not in the program");
  }
  CHECK(chapters == 6);
}

TEST_CASE("docs/library.md shows the code of the examples") {
  const fs::path page = kRoot / "docs" / "library.md";
  std::string examples;
  for (const char* name : {"CMakeLists.txt", "train.cpp", "predict.c"}) examples += read(kRoot / "examples" / name);
  check_none(strange_code(read(page), examples), page, "not in examples/");
  check_none(unknown_names(read(page)), page, "not in the sources");
}

TEST_CASE("the checks of the documents can fail") {
  CHECK(missing_paths("`tensor/ops/conv.h`, [x](y/tensor/none.h) and tests/ops.").empty());
  CHECK(missing_paths("`tensor/ops/no_such.h`") == Problems{"tensor/ops/no_such.h"});
  const fs::path page = kRoot / "docs" / "ops" / "conv2d.md";
  CHECK(broken_links("[a](conv2d.md) [b](../performance.md#winograd-cpu) [c](https://example.org/x) [d](#formula)", page).empty());
  CHECK(broken_links("[a](no_such.md) [b](../performance.md#no-such-heading) [c](#no-such-heading)", page).size() == 3);
  CHECK(unknown_names("Note [Winograd], TESSERA_CPU_BACKEND").empty());
  CHECK(unknown_names("Note [No such note], TESSERA_NO_SUCH_SWITCH").size() == 2);
  CHECK(missing_cases("`test_ops -tc=\"loss kernels,pointwise*\"`; test_cuda_host --test-case='Loss kernels*'").empty());
  CHECK(missing_cases("test_ops -tc=\"no such case,loss kernel\"").size() == 2);
  CHECK(missing_cases("test_no_such_program -tc=\"*\"").size() == 1);
  const std::string program = "int f() {\n  int a = 1;\n\n  return a;\n}\n";
  CHECK(strange_code("```cpp\nint a = 1;\n\nreturn a;\n```\n", program).empty());
  CHECK(strange_code("```cpp\nint a = 2;\n```\n", program).size() == 1);
  CHECK(strange_code("```cpp\nint a = 1;\nreturn a;\n```\n", program).size() == 1);
}
