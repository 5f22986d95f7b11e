// Profiles some steps of a loop: lets the first ones pass, in which caches and allocator fill, then puts a Profiler in front of the
// backend for as many as were asked for.
//
//   profile.resume();                                       // the steps of an epoch begin
//   while (next batch) { ...; if (profile.step_done(seconds waited for the loader)) print(profile.result()); }
//   profile.pause();                                        // what follows is no step
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/module.h"
#include "tensor/profiler.h"
#include "yolo/report/profile_table.h"

namespace tessera {

class StepProfile {
 public:
  static constexpr int64_t kWarmUp = 3;

  StepProfile(Device device, int64_t steps, Roof roof);

  // Owners of scopes, in the order of the table. `all`: the direction of everything that they do, for what is not a layer.
  void name(Module& model);
  void name(const void* owner, std::string name, std::string all);

  void resume();
  void pause();
  // True when this step was the last one; from then on all calls do nothing.
  bool step_done(double loader_wait_seconds = 0);
  bool started() const { return steps_done_ > kWarmUp; }
  bool complete() const { return steps_done_ >= kWarmUp + steps_; }
  Profile result() const;  // of the steps so far

 private:
  using Clock = std::chrono::steady_clock;
  struct Name {
    const void* owner;
    std::string text, all;
  };
  bool measuring() const { return steps_done_ >= kWarmUp && !complete(); }

  Device device_;
  int64_t steps_, steps_done_ = 0;
  Roof roof_;
  std::vector<Name> names_;
  Profiler profiler_;
  std::optional<BackendGuard> guard_;
  Clock::time_point since_;
  double seconds_ = 0, loader_seconds_ = 0;
};

}  // namespace tessera
