#include "tensor/profiler.h"

#include <chrono>

#include "tensor/base/scope.h"

namespace tessera {

void Profiler::observe(const OpCost& cost, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  run();
  inner().synchronize();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const WorkScope scope = current_scope();
  Total& total = totals_[{scope.owner, cost.kind, scope.backward}];
  ++total.calls;
  total.seconds += seconds;
  total.operations += cost.operations;
  total.bytes += cost.bytes;
}

}  // namespace tessera
