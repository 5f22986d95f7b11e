#include "yolo/step_replay.h"

#include <functional>

namespace tessera {

StepReplay::StepReplay(MakeRecorder make_recorder, std::function<void(const std::string&)> log, Communicator& ranks)
    : make_recorder_(std::move(make_recorder)), log_(std::move(log)), ranks_(&ranks) {}

// Of one rank its own; of several the hash of each, so that all of them tell the same combinations apart.
std::string StepReplay::of_all_ranks(const std::string& shapes) const {
  if (ranks_->alone() || !make_recorder_) return shapes;
  std::string all;
  for (const uint64_t h : ranks_->all_gather(uint64_t(std::hash<std::string>{}(shapes)), "the shapes of the step")) {
    all += fmt::format("{:x} ", h);
  }
  return all;
}

// "": none has any.
std::string StepReplay::trouble_of_any_rank(const std::string& own) const {
  if (ranks_->alone()) return own;
  std::string first;
  const std::vector<std::string> all = ranks_->gather(own, 0, "whether the step was recorded");
  for (size_t r = all.size(); r-- > 0;) {
    if (!all[r].empty()) first = fmt::format("{} (rank {})", all[r], r);
  }
  ranks_->broadcast(first, 0, "whether the step was recorded on all ranks");
  return first;
}

StepReplay::Ran StepReplay::run(const std::string& own_shapes, int form, const std::function<void()>& work) {
  const std::string shapes = of_all_ranks(own_shapes);
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
  std::string trouble;
  try {
    if (!recorder_) recorder_ = make_recorder_();
    if (!recorder_) {
      make_recorder_ = nullptr;
      return false;
    }
    recordings_[form] = recorder_->record(work);
  } catch (const Error& e) {
    trouble = e.message();
  }
  trouble = trouble_of_any_rank(trouble);
  if (!trouble.empty()) {
    give_up(trouble);
    return false;
  }
  try {
    recordings_[form]->replay();
  } catch (const Error& e) {
    // A first launch may take memory; any other failure is the device's. The other ranks have started theirs.
    if (e.code() != ErrorCode::kMemory || !ranks_->alone()) throw;
    give_up(e.message());
    return false;
  }
  return true;
}

void StepReplay::give_up(const std::string& why) {
  log_(fmt::format("the step runs call by call, not as a CUDA graph: {}", why));
  make_recorder_ = nullptr;
  release();
}

void StepReplay::release() {
  recordings_.clear();
  recorder_.reset();
}

}  // namespace tessera
