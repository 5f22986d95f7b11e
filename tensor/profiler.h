// Times every op call of this thread, by the scope it runs in (tensor/base/scope.h) and what it does:
//
//   Profiler profiler(backend_for(device));
//   const BackendGuard guard(profiler);      // ... work ...
//
// Results are those of the backend behind it. Each call costs about half a microsecond more; on a device each call is waited for, so
// that nothing overlaps, and what starting and awaiting the smallest piece of work takes is left out of its time.
#pragma once

#include <map>
#include <tuple>

#include "tensor/observing_backend.h"

namespace tessera {

class Profiler : public ObservingBackend {
 public:
  // Owner of the scope, kind of work, whether in the backward pass.
  using Key = std::tuple<const void*, OpKind, bool>;
  struct Total {
    int64_t calls = 0;
    double seconds = 0, operations = 0, bytes = 0;
  };

  explicit Profiler(Backend& inner);
  const std::map<Key, Total>& totals() const { return totals_; }
  void clear() { totals_.clear(); }

 protected:
  void observe(const OpCost& cost, const std::function<void()>& run) override;

 private:
  const double start_and_wait_;  // seconds
  std::map<Key, Total> totals_;
};

}  // namespace tessera
