// train: the training loop from arguments to the summary on stdout.
#include <cstdio>
#include <filesystem>

#include "cuda/install.h"
#include "tensor/base/file.h"
#include "tensor/base/memory.h"
#include "tensor/base/shell_word.h"
#include "tensor/base/standard_streams.h"
#include "tools/verbs/json_text.h"
#include "tools/verbs/roof.h"
#include "tools/verbs/verbs.h"
#include "yolo/config_values.h"
#include "yolo/metrics_json.h"
#include "yolo/report/html_report.h"
#include "yolo/train/trainer.h"

namespace tessera {

namespace {

nlohmann::ordered_json summary_json(Trainer& trainer, const TrainSummary& s) {
  nlohmann::ordered_json j = {{"command", "train"}, {"model", trainer.model().spec().name}, {"data", trainer.config().text("data")}};
  if (s.validation.images > 0) j.update(to_json(s.validation));  // nothing was measured when interrupted before
  j["epoch"] = s.epochs_done;
  if (s.best_epoch > 0) {
    j.update({{"best_epoch", s.best_epoch}, {"best_metric", trainer.config().text("best")}, {"best_value", s.best_value}});
  }
  j["images_per_s"] = s.images_per_s;
  j["peak_rss_mib"] = peak_resident_bytes() >> 20;
  j["planned_peak_mib"] = s.planned_peak_bytes >> 20;
  j["seconds"] = s.seconds;
  j["run_dir"] = s.run_folder.string();
  if (std::filesystem::exists(s.best)) j["weights"] = s.best.string();
  return j;
}

// Over the devices of several ranks, where NCCL is; null: what world() does.
std::unique_ptr<Communicator> communicator_of_devices(const Config& config, LogStyle log) {
  if (world().alone() || device_of(config, world().local_rank(), world().local_size()) == Device::cpu()) return nullptr;
  std::unique_ptr<Communicator> over_device = device_communicator(world());
  const std::string how = over_device
                              ? describe_nccl()
                              : "the host, which is slow and keeps steps from being CUDA graphs (tessera info says under nccl why)";
  if (world().leader()) log_line(log, fmt::format("gradients go over {}", how));
  return over_device;
}

// How to go on, on stderr: stdout may be JSON.
void print_interrupted(const Config& config, const TrainSummary& s, const std::string& command, Device device,
                       const Communicator& ranks) {
  if (!config.flag("save")) {
    print_stderr("interrupted in epoch {}; nothing is saved because of --save false\n", s.epochs_done + 1);
    return;
  }
  print_stderr("interrupted in epoch {}; state saved. Go on with:\n  {}{} --resume {}{}\n", s.epochs_done + 1,
               ranks.alone() ? "" : fmt::format("mpirun -n {} ", ranks.size()), command, shell_word(s.run_folder.string()),
               device == Device::cpu() ? "" : " --device " + config.text("device"));
}

void print_summary(const Config& config, const TrainSummary& s) {
  const std::string epochs = fmt::format("{} epoch{}", s.epochs_done, s.epochs_done == 1 ? "" : "s");
  if (s.stopped_early) {
    const bool out_of_time = config.is_set("time") && s.seconds > config.number("time") * 3600;
    fmt::print("stopped after {}: {}\n", epochs,
               out_of_time ? "out of time" : fmt::format("no better {} in {} epochs", config.text("best"), config.text("patience")));
  }
  fmt::print("{}", format_table(s.validation, s.validation.classes.size() > 1));
  fmt::print("\n{} in {} ({:.1f} images/s in training, peak memory {} MiB)\n", epochs, format_duration(s.seconds), s.images_per_s,
             peak_resident_bytes() >> 20);
  fmt::print("box  mAP50-95 {:.4f}  mAP50 {:.4f}\nmask mAP50-95 {:.4f}  mAP50 {:.4f}   ({} style, {})\n", s.validation.box.map,
             s.validation.box.map50, s.validation.mask.map, s.validation.mask.map50, s.validation.map_style,
             s.best_epoch > 0 ? fmt::format("epoch {}, best by {}: {:.5g}", s.best_epoch, config.text("best"), s.best_value) : "last epoch");
  fmt::print("run       {}\n", s.run_folder.string());
  if (config.flag("save")) fmt::print("weights   {}\n", (std::filesystem::exists(s.best) ? s.best : s.last).string());
  if (std::filesystem::exists(s.run_folder / "images.csv")) {
    fmt::print("images    {}: what was found and missed in each, worst first\n", (s.run_folder / "images.csv").string());
  }
  fmt::print("report    {}\n", (s.run_folder / "report.html").string());
  if (config.flag("plots"))
    fmt::print("plots     {}/train_batch*.png, val_batch*.png, *_curve.png, results.png\n", s.run_folder.string());
}

}  // namespace

int run_train(const Config& given) {
  const LogStyle log = prepare(given, world());
  const std::unique_ptr<Communicator> over_device = communicator_of_devices(given, log);
  Communicator& ranks = over_device ? *over_device : world();
  const bool profiled = given.integer("profile") > 0 && ranks.leader();
  const Device device = device_of(given, ranks.local_rank(), ranks.local_size());
  Trainer trainer(given, log, profiled ? measured_roof(device, compute_type_of(given)) : Roof{}, ranks);
  const Config& config = trainer.config();
  const TrainSummary s = trainer.fit();
  const int code = s.interrupted ? int(ErrorCode::kInterrupted) : 0;
  if (!ranks.leader()) return code;
  const nlohmann::ordered_json j = summary_json(trainer, s);
  write_file_atomic(s.run_folder / "metrics.json", json_text(j, 2));
  if (!s.interrupted) write_html_report(s.run_folder, j, made_by(config));
  if (given.flag("json")) print_json(j);
  if (s.interrupted) {
    print_interrupted(config, s, given.command(), device, ranks);
  } else if (!given.flag("json")) {
    print_summary(config, s);
  }
  return code;
}

}  // namespace tessera
