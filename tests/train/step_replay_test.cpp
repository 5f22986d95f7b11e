// When a step runs call by call, is recorded and is replayed, and what becomes of it when that fails; with a device that only
// counts.
#include "yolo/step_replay.h"

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <vector>

using namespace tessera;

namespace {

using enum StepReplay::Ran;

struct Counts {
  int calls = 0, recorders = 0, recorded = 0, replayed = 0, alive = 0;
  std::vector<std::string> log;
  std::optional<ErrorCode> record_fails{}, replay_fails{};
};

struct CountedRecording : Recording {
  explicit CountedRecording(Counts& c) : counts(c) { ++counts.alive; }
  ~CountedRecording() override { --counts.alive; }
  void replay() override {
    if (counts.replay_fails) throw Error(*counts.replay_fails, "no replay");
    ++counts.replayed;
  }
  Counts& counts;
};

struct CountedRecorder : Recorder {
  explicit CountedRecorder(Counts& c) : counts(c) { ++counts.recorders; }
  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    work();
    if (counts.record_fails) throw Error(*counts.record_fails, "no recording");
    ++counts.recorded;
    return std::make_unique<CountedRecording>(counts);
  }
  Counts& counts;
};

StepReplay replay_of(Counts& c) {
  return {[&c] { return std::make_unique<CountedRecorder>(c); }, [&c](const std::string& line) { c.log.push_back(line); }};
}

}  // namespace

TEST_CASE("step replay: call by call until warm, then recorded, then replayed") {
  Counts c;
  StepReplay steps = replay_of(c);
  const auto work = [&] { ++c.calls; };
  for (int i = 0; i < StepReplay::kWarmUp; ++i) CHECK(steps.run("a", 0, work) == kCalls);
  CHECK(c.recorders == 0);
  CHECK(steps.run("a", 0, work) == kRecorded);
  CHECK(c.calls == StepReplay::kWarmUp + 1);  // while it was recorded
  CHECK(c.replayed == 1);
  CHECK(steps.run("a", 0, work) == kReplayed);
  CHECK(c.calls == StepReplay::kWarmUp + 1);
  CHECK(c.replayed == 2);

  // Another form of the step has a warm-up and a recording of its own, from the same recorder.
  for (int i = 0; i < StepReplay::kWarmUp; ++i) CHECK(steps.run("a", 1, work) == kCalls);
  CHECK(steps.run("a", 1, work) == kRecorded);
  CHECK(steps.run("a", 0, work) == kReplayed);
  CHECK(steps.run("a", 1, work) == kReplayed);
  CHECK(c.recorders == 1);
  CHECK(c.alive == 2);

  // A smaller batch: its memory is that of the recordings.
  CHECK(steps.run("b", 1, work) == kCalls);
  CHECK(c.alive == 0);
  CHECK(steps.run("a", 1, work) == kRecorded);  // still warm
  CHECK(c.recorders == 2);

  // Validation takes the memory.
  steps.release();
  CHECK(c.alive == 0);
  CHECK(steps.run("a", 1, work) == kRecorded);
  CHECK(steps.run("a", 1, work) == kReplayed);
  CHECK(c.log.empty());
}

TEST_CASE("step replay: what cannot be recorded runs call by call, and one line says why") {
  Counts c;
  StepReplay steps = replay_of(c);
  int host_work = 0;
  const auto work = [&] { ++c.calls, ++host_work; };
  c.record_fails = ErrorCode::kMemory;
  for (int i = 0; i < StepReplay::kWarmUp + 3; ++i) CHECK(steps.run("a", 0, work) == kCalls);
  CHECK(c.log == std::vector<std::string>{"the step runs call by call, not as a CUDA graph: no recording"});
  CHECK(c.recorders == 1);
  CHECK(c.replayed == 0);
  CHECK(c.calls == StepReplay::kWarmUp + 4);  // one of them while the recording failed
}

TEST_CASE("step replay: no memory at the first start falls back, a device that fails does not") {
  for (ErrorCode code : {ErrorCode::kMemory, ErrorCode::kBug}) {
    Counts c;
    StepReplay steps = replay_of(c);
    const auto work = [&] { ++c.calls; };
    for (int i = 0; i < StepReplay::kWarmUp; ++i) steps.run("a", 0, work);
    c.replay_fails = code;
    if (code == ErrorCode::kMemory) {
      CHECK(steps.run("a", 0, work) == kCalls);
      CHECK(c.log.size() == 1);
      CHECK(c.alive == 0);
    } else {
      CHECK_THROWS_AS(steps.run("a", 0, work), Error);
      CHECK(c.log.empty());
    }
  }
  // Once it ran, a start that fails is an error: whatever it is, the step is not made.
  Counts c;
  StepReplay steps = replay_of(c);
  for (int i = 0; i <= StepReplay::kWarmUp; ++i) steps.run("a", 0, [] {});
  c.replay_fails = ErrorCode::kMemory;
  CHECK_THROWS_AS(steps.run("a", 0, [] {}), Error);
}

TEST_CASE("step replay: a device that cannot record, or is not to") {
  Counts c;
  const auto work = [&] { ++c.calls; };
  StepReplay off({}, [](const std::string&) {});
  StepReplay none([] { return std::unique_ptr<Recorder>(); }, [&](const std::string& line) { c.log.push_back(line); });
  for (int i = 0; i < 6; ++i) {
    CHECK(off.run("a", 0, work) == kCalls);
    CHECK(none.run("a", 0, work) == kCalls);
  }
  CHECK(c.calls == 12);
  CHECK(c.log.empty());
}
