#include "yolo/train/step_replay.h"

namespace tessera {

StepReplay::StepReplay(MakeRecorder make_recorder, std::function<void(const std::string&)> log)
    : make_recorder_(std::move(make_recorder)), log_(std::move(log)) {}

StepReplay::Ran StepReplay::run(const std::string& shapes, int form, const std::function<void()>& work) {
  if (shapes != shapes_) {
    release();
    shapes_ = shapes;
  }
  if (const auto it = recordings_.find(form); it != recordings_.end()) {
    it->second->replay();
    return Ran::kReplayed;
  }
  int& warm = warm_[{shapes, form}];
  if (warm >= kWarmUp && record(form, work)) return Ran::kRecorded;
  if (warm < kWarmUp) ++warm;
  work();
  return Ran::kCalls;
}

// False: the step has not run.
bool StepReplay::record(int form, const std::function<void()>& work) {
  if (!make_recorder_) return false;
  try {
    if (!recorder_) recorder_ = make_recorder_();
    if (!recorder_) {
      make_recorder_ = nullptr;
      return false;
    }
    recordings_[form] = recorder_->record(work);
  } catch (const Error& e) {
    give_up(e);
    return false;
  }
  try {
    recordings_[form]->replay();
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kMemory) throw;  // a first launch takes memory; any other failure is the device's
    give_up(e);
    return false;
  }
  return true;
}

void StepReplay::give_up(const Error& why) {
  log_(fmt::format("the step runs call by call, not as a CUDA graph: {}", why.message()));
  make_recorder_ = nullptr;
  release();
}

void StepReplay::release() {
  recordings_.clear();
  recorder_.reset();
}

}  // namespace tessera
