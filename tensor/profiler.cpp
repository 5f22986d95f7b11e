#include "tensor/profiler.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "tensor/base/scope.h"

namespace tessera {

namespace {

double seconds_of(Backend& backend, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  run();
  backend.synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Of a device: the median for a kernel with one number to write. A call of the host has no such start.
double start_and_wait_of(Backend& backend) {
  if (backend.device_kind() == Device::Kind::kCpu) return 0;
  void* const number = backend.allocator().allocate(sizeof(float));
  std::vector<double> times(51);
  for (double& t : times) t = seconds_of(backend, [&] { backend.fill({number, DType::kF32, {1}, {1}}, 0); });
  backend.allocator().release(number);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace

Profiler::Profiler(Backend& inner) : ObservingBackend(inner), start_and_wait_(start_and_wait_of(inner)) {}

void Profiler::observe(const OpCost& cost, const std::function<void()>& run) {
  const double seconds = std::max(seconds_of(inner(), run) - start_and_wait_, 0.0);
  const WorkScope scope = current_scope();
  Total& total = totals_[{scope.owner, cost.kind, scope.backward}];
  ++total.calls;
  total.seconds += seconds;
  total.operations += cost.operations;
  total.bytes += cost.bytes;
}

}  // namespace tessera
