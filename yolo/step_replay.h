// Decides how repeated work, such as a training step, runs: call by call until it is warm, then recorded, then replayed.
//
//   the first kWarmUp steps of a form     call by call: caches are filled, kernels loaded, plans made
//   the next one                          recorded, and replayed at once
//   those after it                        replayed
//   other shapes (a smaller last batch)   recordings and their memory are given back; the step runs call by call until it is warm
//   something that cannot be recorded     one line of the log says why; call by call from there on
//
// Call by call is the reference: a replayed step gives the same bits.
//
// Several ranks record their reductions too, so all of them do the same at the same step: shapes are new when those of any rank
// are, and what one rank cannot record is recorded by none. That takes one short message over the host for each step and two more
// for a recording.
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

  // Without make_recorder, or if it returns null (on all ranks alike), everything runs call by call. `log` gets the line that says
  // why a recording failed.
  StepReplay(MakeRecorder make_recorder, std::function<void(const std::string&)> log, Communicator& ranks = single_process());

  // `shapes`: the sizes of everything that goes in. `form`: which of several kinds of work on such sizes this is, for instance a
  // step with an update or without. While the shapes stay the same, so must the addresses of all that the work reads or leaves.
  // Throws what the work or a replay throws.
  Ran run(const std::string& shapes, int form, const std::function<void()>& work);
  // Gives recordings and their memory back. Forms that were warm stay warm and are recorded anew when they come next.
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
