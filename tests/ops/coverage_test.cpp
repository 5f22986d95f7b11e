// Every method of Backend has a case, and every case names a method.
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include "tests/support/op_case.h"

namespace tessera::testing {
namespace {

std::set<std::string> methods_in_headers() {
  std::set<std::string> methods;
  const std::regex pure_virtual(R"(virtual (?:void|double|bool) (\w+)\([^;]*= 0;)");
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(TESSERA_SOURCE_DIR) / "tensor" / "ops")) {
    if (entry.path().extension() != ".h") continue;
    std::ifstream in(entry.path());
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    for (std::sregex_iterator it(text.begin(), text.end(), pure_virtual), end; it != end; ++it) methods.insert((*it)[1]);
  }
  return methods;
}

TEST_CASE("every method of Backend has a case") {
  const auto methods = methods_in_headers();
  CHECK(methods.size() > 30);  // the headers were found and understood
  std::set<std::string> covered;
  for (auto cases : op_case::families()) {
    for (const OpCase& c : cases()) {
      covered.insert(c.method);
      CHECK_MESSAGE(methods.contains(c.method), "a case names ", c.method, ", which no op header declares");
    }
  }
  for (const auto& method : methods) CHECK_MESSAGE(covered.contains(method), method, " has no OpCase");
}

TEST_CASE("op rates" * doctest::skip()) {
  for (auto cases : op_case::families()) print_rates(cases());
}

}  // namespace
}  // namespace tessera::testing
