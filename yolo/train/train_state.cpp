#include "yolo/train/train_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "tensor/base/check.h"
#include "yolo/io/ultralytics_names.h"
#include "yolo/io/weights.h"

namespace tessera {

void save_progress(const TrainProgress& progress, CheckpointMeta& meta) {
  meta.epoch = progress.epoch - 1;
  progress.best.save(meta);
  meta.counters["progress.batch"] = progress.batch;
  meta.counters["progress.last_step"] = progress.last_step;
  meta.counters["progress.skipped"] = progress.skipped_steps;
  meta.numbers["progress.seconds"] = progress.seconds;
  meta.numbers["progress.box"] = progress.running.box;
  meta.numbers["progress.seg"] = progress.running.seg;
  meta.numbers["progress.cls"] = progress.running.cls;
  meta.numbers["progress.dfl"] = progress.running.dfl;
}

TrainProgress progress_of(const CheckpointMeta& meta) {
  const auto counter = [&](const char* name) { return meta.counters.contains(name) ? meta.counters.at(name) : 0; };
  const auto number = [&](const char* name) { return meta.numbers.contains(name) ? meta.numbers.at(name) : 0.0; };
  TrainProgress progress;
  progress.epoch = meta.epoch + 1;
  progress.best = BestEpoch::restored(meta);
  progress.batch = counter("progress.batch");
  progress.last_step = counter("progress.last_step");
  progress.skipped_steps = counter("progress.skipped");
  progress.seconds = number("progress.seconds");
  progress.running = {number("progress.box"), number("progress.seg"), number("progress.cls"), number("progress.dfl")};
  return progress;
}

void change_batches(TrainProgress& p, int64_t then, int64_t now) {
  const int64_t passed = p.batch + then * p.epoch - p.last_step;
  p.batch = std::min(p.batch, now);
  p.last_step = std::max<int64_t>(p.batch + now * p.epoch - passed, -1);
}

StateDict TrainState::averaged_weights() const {
  ema_.swap();
  StateDict copy;
  for (const auto& [name, tensor] : to_file_layout(model_.state_dict())) copy.add(name, tensor.clone());
  ema_.swap();
  return copy;
}

void TrainState::save(Checkpoint& c) const {
  // Plain names: the averaged weights, so that the file is a model; the rest is what a resume needs.
  c.model = averaged_weights();
  StateDict& arena = c.sections["arena"];
  for (int g = 0; g < kAllGroups; ++g) {
    arena.add(fmt::format("values.{}", g), arena_.values(ParamGroup(g)));
    if (g < kTrainedGroups) arena.add(fmt::format("grads.{}", g), arena_.grads(ParamGroup(g)));
  }
  update_.save(c.sections["update"]);
  optimizer_.save(c.sections["optimizer"]);
  ema_.save(c.sections["ema"]);
}

void TrainState::restore(const Checkpoint& c, const std::string& file) const {
  load_matching(from_file_layout(c.model), model_.state_dict());  // what lies outside the arena: counters, frozen layers
  const StateDict& arena = c.section("arena", file);
  const auto copy = [&](const std::string& name, const Tensor& into) {
    const Tensor* saved = arena.find(name);
    if (saved == nullptr || saved->shape() != into.shape()) {
      throw Error(ErrorCode::kData, fmt::format("entry arena/{} does not fit this model", name), {file},
                  "the file is damaged; start a new run");
    }
    into.copy_from(*saved);
  };
  for (int g = 0; g < kAllGroups; ++g) {
    copy(fmt::format("values.{}", g), arena_.values(ParamGroup(g)));
    if (g < kTrainedGroups) copy(fmt::format("grads.{}", g), arena_.grads(ParamGroup(g)));
  }
  try {
    optimizer_.restore(c.section("optimizer", file));
    ema_.restore(c.section("ema", file));
    const auto update = c.sections.find("update");
    update_.restore(update == c.sections.end() ? StateDict{} : update->second);  // older runs had none
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kData) throw;
    throw Error(ErrorCode::kData, e.message(), {file}, "the file is damaged; start a new run");
  }
}

}  // namespace tessera
