#include "cuda/vendor/limits.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include "cuda/context.h"
#include "tensor/base/check.h"
#include "tensor/base/env.h"

namespace tessera::cuda::vendor {

size_t most_workspace() {
  const auto text = env("TESSERA_WORKSPACE");
  if (!text) return size_t{256} << 20;
  size_t mib = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), mib);
  if (error != std::errc{} || end != text->data() + text->size() || mib > (size_t{1} << 20)) {
    throw Error(ErrorCode::kUsage, fmt::format("TESSERA_WORKSPACE is '{}', expected MiB, 0 to {}", *text, 1 << 20));
  }
  return mib << 20;
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
  const auto text = env("TESSERA_PLAN_SECONDS");
  if (!text) return 20;
  double seconds = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  if (error != std::errc{} || end != text->data() + text->size() || !(seconds >= 0)) {
    throw Error(ErrorCode::kUsage, fmt::format("TESSERA_PLAN_SECONDS is '{}', expected seconds", *text));
  }
  return seconds;
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
