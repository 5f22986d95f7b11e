// Decides how work that comes again and again runs, as a training step: call by call until it is warm, then recorded, then replayed.
//
//   first kWarmUp steps of a form    call by call: caches, kernels and plans come into being
//   the next one                     recorded, and replayed at once
//   then                             replayed
//   other shapes (a smaller last batch)   recordings and their memory go, the step runs call by call until it is warm in turn
//   something that cannot be recorded     one line says why; call by call from there on
//
// Call by call is the reference: a replayed step gives the same bits.
//
// Of several ranks, whose reductions are recorded too, all do the same at the same step: a form is that of all their shapes
// together, and what one of them cannot record is recorded by none. That takes two short messages over the host for a recording,
// and one a step.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "tensor/base/check.h"
#include "tensor/capture.h"
#include "tensor/comm.h"

namespace tessera {

class StepReplay {
 public:
  static constexpr int kWarmUp = 3;
  enum class Ran { kCalls, kRecorded, kReplayed };
  using MakeRecorder = std::function<std::unique_ptr<Recorder>()>;

  // make_recorder empty, or giving null, on all ranks alike: always call by call. `log` gets the line that says why a recording
  // failed.
  StepReplay(MakeRecorder make_recorder, std::function<void(const std::string&)> log, Communicator& ranks = single_process());

  // `shapes`: all sizes of what goes in. `form`: which of several pieces of work on them. Addresses of everything that the work
  // reads or leaves must stay the same while shapes do. An error of the work itself is thrown; so is that of a replay.
  Ran run(const std::string& shapes, int form, const std::function<void()>& work);
  // Gives recordings and their memory back; what was warm stays so and is recorded anew at its next turn.
  void release();

 private:
  std::string of_all_ranks(const std::string& shapes) const;
  std::string trouble_of_any_rank(const std::string& own) const;
  bool record(int form, const std::function<void()>& work);
  void give_up(const std::string& why);

  MakeRecorder make_recorder_;
  std::function<void(const std::string&)> log_;
  Communicator* ranks_;
  std::string shapes_;
  std::map<std::pair<std::string, int>, int> warm_;
  std::unique_ptr<Recorder> recorder_;
  std::map<int, std::unique_ptr<Recording>> recordings_;  // of shapes_, by form
};

}  // namespace tessera
