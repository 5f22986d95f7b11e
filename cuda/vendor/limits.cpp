#include "cuda/vendor/limits.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <limits>
#include <optional>
#include <string>

#include "cuda/context.h"
#include "tensor/base/check.h"
#include "tensor/base/env.h"

namespace tessera::cuda::vendor {

namespace {
// The number from 0 to `most` that an environment switch holds; none where it is not set.
template <class T>
std::optional<T> number_of(const char* name, T most, const std::string& expected) {
  const auto text = env(name);
  if (!text) return std::nullopt;
  T number{};
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc{} || end != text->data() + text->size() || !(number >= 0 && number <= most)) {
    throw Error(ErrorCode::kUsage, fmt::format("{} is '{}', expected {}", name, *text, expected));
  }
  return number;
}
}  // namespace

size_t most_workspace() {
  constexpr size_t kMostMib = size_t{1} << 20;
  const auto mib = number_of<size_t>("TESSERA_WORKSPACE", kMostMib, fmt::format("MiB, 0 to {}", kMostMib));
  return mib ? *mib << 20 : kDefaultWorkspace;
}

bool deterministic() {
  static const bool on = env("TESSERA_DETERMINISTIC").value_or("0") != "0";
  return on;
}

bool tf32() {
  static const bool on = env("TESSERA_TF32").value_or("0") != "0";
  return on;
}

double plan_seconds() {
  return number_of("TESSERA_PLAN_SECONDS", std::numeric_limits<double>::infinity(), "seconds").value_or(kDefaultPlanSeconds);
}

double least_seconds(const std::function<void()>& start, double hopeless) {
  constexpr int kRuns = 3, kInRow = 3;  // a row hides how long a call takes to start
  const auto seconds = [&](int runs) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < runs; ++i) start();
    synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / runs;
  };
  seconds(1);  // loads code
  double least = seconds(1);
  if (least > 3 * hopeless) return least;
  for (int run = 0; run < kRuns; ++run) least = std::min(least, seconds(kInRow));
  return least;
}

}  // namespace tessera::cuda::vendor
