#include <cstdio>
#include <nlohmann/json.hpp>

#include "tensor/base/file.h"
#include "tensor/base/memory.h"
#include "tools/verbs/verbs.h"
#include "yolo/metrics_json.h"
#include "yolo/train/trainer.h"

namespace tessera {

namespace {

nlohmann::ordered_json summary_json(const Config& config, Trainer& trainer, const TrainSummary& s) {
  nlohmann::ordered_json j = {{"command", "train"}, {"model", trainer.model().spec().name}, {"data", config.text("data")}};
  j.update(to_json(s.validation));
  j["epoch"] = s.epochs_done;
  j["images_per_s"] = s.images_per_s;
  j["peak_rss_mib"] = peak_resident_bytes() >> 20;
  j["seconds"] = s.seconds;
  j["run_dir"] = s.run_folder.string();
  j["weights"] = s.best.string();
  return j;
}

}  // namespace

int run_train(const Config& config) {
  const LogStyle log = prepare(config);
  Trainer trainer(config, log);
  const TrainSummary s = trainer.fit();
  const nlohmann::ordered_json j = summary_json(config, trainer, s);
  write_file_atomic(s.run_folder / "metrics.json", j.dump(2) + "\n");
  const bool json = config.flag("json");
  if (json) fmt::print("{}\n", j.dump());
  if (s.interrupted) {
    fmt::print(stderr, "interrupted in epoch {}; state saved. Go on with:\n  train_seg --resume {}\n", s.epochs_done + 1, s.run_folder.string());
    return int(ErrorCode::kInterrupted);
  }
  if (json) return 0;
  if (s.stopped_early) fmt::print("stopped after {} epochs: no improvement, or out of time\n", s.epochs_done);
  fmt::print("{}", format_table(s.validation, s.validation.classes.size() > 1));
  fmt::print("\n{} epochs in {} ({:.1f} images/s in training, peak memory {} MiB)\n", s.epochs_done, format_duration(s.seconds), s.images_per_s,
             peak_resident_bytes() >> 20);
  fmt::print("box  mAP50-95 {:.4f}  mAP50 {:.4f}\nmask mAP50-95 {:.4f}  mAP50 {:.4f}   ({} style, last epoch)\n", s.validation.box.map,
             s.validation.box.map50, s.validation.mask.map, s.validation.mask.map50, s.validation.map_style);
  fmt::print("weights   {}\npictures  {} (train_batch*.png, val_batch*.png, results.png)\n", s.best.string(), s.run_folder.string());
  return 0;
}

}  // namespace tessera
