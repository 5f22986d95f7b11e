// Every method of Backend has a case, and every case names a method.
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include "tensor/ref/ref_backend.h"
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

std::set<std::string> methods_in_headers() {
  std::set<std::string> methods;
  const std::regex declared(R"(virtual (?:void|double|bool) (\w+)\([^;{]*;)");  // what a header answers itself computes nothing
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(TESSERA_SOURCE_DIR) / "tensor" / "ops")) {
    if (entry.path().extension() != ".h") continue;
    std::ifstream in(entry.path());
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    for (std::sregex_iterator it(text.begin(), text.end(), declared), end; it != end; ++it) methods.insert((*it)[1]);
  }
  return methods;
}

TEST_CASE("every method of Backend has a case") {
  const auto methods = methods_in_headers();
  CHECK(methods.size() > 30);  // the headers were found and understood
  std::set<std::string> covered;
  for (const OpCase& c : all_op_cases()) {
    covered.insert(c.method);
    CHECK_MESSAGE(methods.contains(c.method), "a case names ", c.method, ", which no op header declares");
  }
  for (const auto& method : methods) CHECK_MESSAGE(covered.contains(method), method, " has no OpCase");
}

// Each of these mistakes must show: a harness that cannot fail proves nothing.
class Faulty : public RefBackend {
 public:
  enum class Fault { kNone, kValue, kNeighbour, kReadsGap, kIgnoresAccumulate };
  explicit Faulty(Fault fault) : fault_(fault) {}

  void unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) override {
    if (fault_ == Fault::kNeighbour) dx.cols = x.cols = dy.cols = dx.cols + 1;
    if (fault_ == Fault::kReadsGap) x = {data<float>(x) + 1, x.t, x.rows, x.cols, x.pitch};
    if (fault_ == Fault::kIgnoresAccumulate) accumulate = false;
    RefBackend::unary_backward(op, x, dy, dx, accumulate);
    if (fault_ == Fault::kValue) data<float>(dx)[0] += 1e-4f;
  }

 private:
  Fault fault_;
};

TEST_CASE("the harness notices faulty kernels") {
  using namespace op_case;
  const OpCase c{.method = "unary_backward",
                 .detail = "square",
                 .slots = {{"x", {3, 5}}, {"dy", {3, 5}}, {"dx", {3, 5}, Role::kOut}},
                 .run =
                     [](Backend& b, const Bound& t, bool accumulate) {
                       return b.unary_backward(UnaryOp::kSquare, t.rows("x"), t.rows("dy"), t.rows("dx"), accumulate), 0.0;
                     },
                 .accumulates = true};
  const Reference reference(c, DType::kF32);
  auto passes = [&](Faulty::Fault fault, const Plan& plan) {
    Faulty backend(fault);
    const Outcome got = execute(c, backend, plan);
    return difference(c, DType::kF32, got, plan.accumulate_first ? reference.accumulated : reference.once).empty() &&
           got.disturbed == 0;
  };
  const Plan dense{.type = DType::kF32, .value_type = DType::kF32};
  const Plan pitched{.type = DType::kF32, .value_type = DType::kF32, .placement = Placement::kPitchedAligned};
  const Plan accumulating{.type = DType::kF32, .value_type = DType::kF32, .accumulate_first = true};
  CHECK(passes(Faulty::Fault::kNone, dense));
  CHECK(passes(Faulty::Fault::kNone, pitched));
  CHECK(passes(Faulty::Fault::kNone, accumulating));
  CHECK_FALSE(passes(Faulty::Fault::kValue, dense));
  CHECK_FALSE(passes(Faulty::Fault::kNeighbour, pitched));
  CHECK_FALSE(passes(Faulty::Fault::kReadsGap, pitched));
  CHECK_FALSE(passes(Faulty::Fault::kIgnoresAccumulate, accumulating));
}

TEST_CASE("op rates" * doctest::skip()) {
  print_rates(all_op_cases());
}

}  // namespace
}  // namespace tessera::testing
