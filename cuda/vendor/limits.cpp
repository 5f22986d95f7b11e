#include "cuda/vendor/limits.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <limits>

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

double least_seconds(const std::function<void()>& start) {
  constexpr int kRuns = 4, kInRow = 3;  // the first run loads code; a row hides how long a call takes to start
  start();
  synchronize();
  double least = std::numeric_limits<double>::infinity();
  for (int run = 0; run < kRuns; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kInRow; ++i) start();
    synchronize();
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / kInRow);
  }
  return least;
}

}  // namespace tessera::cuda::vendor
