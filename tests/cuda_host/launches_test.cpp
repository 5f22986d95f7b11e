// How many kernels a training step starts, which and for whom. A launch costs a few microseconds however little it does, so the
// number is a bound of its own on the step of a small network.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "nn/layer_names.h"
#include "tests/cuda_host/emulator.h"
#include "tests/support/device_training.h"

namespace tessera::testing {
namespace {

struct StepLaunches {
  std::vector<emulated::LaunchCount> counts;
  std::map<const void*, std::string> names;  // of owners
  uint64_t all = 0;
};

// Of a step of n in 16 bits call by call, from the batch on the device to updated weights and averages.
StepLaunches launches_of_a_step() {
  Training training(false, DType::kBF16);
  training.run(0);
  emulated::count_launches(true);
  training.step.repeat();
  training.step.finish();
  StepLaunches s{emulated::counted_launches(), {{&training.loss, "loss"}, {&training.update, "update"}, {nullptr, "nobody"}}};
  emulated::count_launches(false);
  for (const auto& [owner, name] : layer_names(*training.model)) s.names[owner] = name;
  for (const auto& c : s.counts) s.all += c.launches;
  return s;
}

struct Row {
  uint64_t forward = 0, backward = 0;
};
std::string table_of(const std::map<std::string, Row>& rows) {
  std::vector<std::pair<std::string, Row>> sorted(rows.begin(), rows.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second.forward + a.second.backward > b.second.forward + b.second.backward;
  });
  std::string text = fmt::format("{:<44}{:>9}{:>9}\n", "", "forward", "backward");
  for (const auto& [name, row] : sorted) text += fmt::format("{:<44}{:>9}{:>9}\n", name, row.forward, row.backward);
  return text;
}

TEST_CASE("launches of a training step, by kernel and by layer" * doctest::skip()) {  // prints
  const StepLaunches step = launches_of_a_step();
  std::map<std::string, Row> kernels, layers;
  for (const auto& c : step.counts) {
    for (Row* row : {&kernels[c.kernel], &layers[step.names.at(c.scope.owner)]}) {
      (c.scope.backward ? row->backward : row->forward) += c.launches;
    }
  }
  MESSAGE(step.all, " launches\n", table_of(kernels), "\n", table_of(layers));
}

TEST_CASE("launches of a training step") {
  constexpr uint64_t kMost = 716;
  const StepLaunches step = launches_of_a_step();
  CHECK(step.all <= kMost);
  CHECK(std::all_of(step.counts.begin(), step.counts.end(), [&](const auto& c) { return step.names.contains(c.scope.owner); }));
}

}  // namespace
}  // namespace tessera::testing
