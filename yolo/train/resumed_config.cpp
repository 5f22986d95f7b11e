#include "yolo/train/resumed_config.h"

#include <algorithm>

#include "tensor/base/check.h"
#include "tensor/base/shell_word.h"
#include "yolo/io/weights.h"
#include "yolo/train/train_options.h"
#include "yolo/train/train_state.h"

namespace tessera {

namespace {

// Key among a checkpoint's arguments: the names that the user had given, each between blanks.
constexpr const char* kExplicitArguments = "(explicit)";

// A resumed run takes its arguments from the checkpoint; these may be given anew because they change nothing in the results, or
// only extend the run. The data may lie elsewhere now; that it is the same is looked at when it is open.
constexpr const char* kFreeOnResume[] = {"resume",    "threads",  "workers",   "quiet",  "json",        "log",
                                         "epochs",    "patience", "time",      "plots",  "save_period", "save_minutes",
                                         "data",      "data_root", "cache",    "cache_mib", "cache_dir",   "device",
                                         "graph",     "recompute", "tensorboard"};
// And these belong to one sitting: a resumed run has them only when they are given anew.
constexpr const char* kOfOneSitting[] = {"profile", "conv"};

template <size_t N>
bool is_one_of(const char* const (&names)[N], const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// Where the run stands must be a place that arithmetic of batches can begin at.
void check_progress(const CheckpointMeta& meta, const std::filesystem::path& file) {
  constexpr int64_t kMostBatches = int64_t(1) << 31, kMostSteps = int64_t(1) << 61;
  const TrainProgress at = progress_of(meta);
  const auto within = [](int64_t n, int64_t least, int64_t most) { return n >= least && n <= most; };
  const auto images = meta.counters.find("data.images");
  if ((images == meta.counters.end() || within(images->second, 0, kMostBatches)) && within(at.batch, 0, kMostBatches) &&
      within(at.last_step, -1, kMostSteps) && within(at.skipped_steps, 0, kMostSteps) && at.seconds >= 0)
    return;
  throw Error(ErrorCode::kData, "the run cannot be where its training state says", {file.string()}, "the file is damaged; start a new run");
}

}  // namespace

std::string run_to_resume(const Config& given) {
  const std::filesystem::path model = given.text("model");
  // A file of arguments names the weights that a run began with, not the run.
  const bool named = given.origin("model") == "command line" && (model.extension() == ".safetensors" || model.extension() == ".pt");
  return named && given.text("resume") == "auto" ? model.string() : given.text("resume");
}

Checkpoint load_to_resume(const std::filesystem::path& file) {
  Checkpoint c;
  try {
    c = load_checkpoint(file);
  } catch (const Error& e) {
    std::error_code ignored;
    const std::filesystem::path best = file.parent_path() / "best.safetensors";
    if (e.code() != ErrorCode::kData || best == file || !std::filesystem::exists(best, ignored)) throw;
    throw Error(e.code(), e.message(), e.where(), e.hint() + "; or start a new run from its best weights: --model " + shell_word(best.string()));
  }
  if (c.meta.format == 0 || c.sections.empty()) {
    throw Error(ErrorCode::kData, "this file holds weights only, no training state", {file.string()},
                "resume from the run's weights/last.safetensors, or start a new run with --model");
  }
  check_progress(c.meta, file);
  OptimizerChoice choice;
  restore_choice(c.meta, choice, file);
  return c;
}

ModelSpec spec_of_run(const Checkpoint& checkpoint, const Config& config) {
  ModelSpec spec = spec_of_checkpoint(checkpoint, config.text("resume"));
  const std::string& weights = config.text("pretrained");
  const bool of_weights = !weights.empty() && weights != "false" && !config.is_explicit("model");
  const CheckpointMeta& meta = checkpoint.meta;
  if (!meta.model_yaml.empty()) {
    spec.name = parse_model_text(meta.model_yaml, of_weights ? weights : config.text("model"), meta.scale, meta.nc).name;
  }
  return spec;
}

std::string why_lost(const std::filesystem::path& best_weights) {
  try {
    load_checkpoint(best_weights);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

std::string compare_classes(const std::vector<std::string>& data, const CheckpointMeta& meta, const std::filesystem::path& file) {
  constexpr const char* kHint = "resume with the data set that the run began with";
  const std::vector<std::string>& stored = meta.class_names;
  if (int64_t(data.size()) != meta.nc) {
    throw Error(ErrorCode::kData, fmt::format("the checkpoint has {} classes, the data {}", meta.nc, data.size()), {file.string()}, kHint);
  }
  std::string line;
  for (size_t i = 0; i < std::min(data.size(), stored.size()); ++i) {
    if (data[i] == stored[i]) continue;
    if (std::find(stored.begin(), stored.end(), data[i]) != stored.end()) {
      throw Error(ErrorCode::kData, fmt::format("class {} is '{}' in the data and '{}' in the checkpoint", i, data[i], stored[i]),
                  {file.string()}, kHint);
    }
    if (line.empty()) line = fmt::format("note: class {} was called '{}' and is '{}' now", i, stored[i], data[i]);
  }
  return line;
}

std::map<std::string, std::string> stored_arguments(const Config& config) {
  std::map<std::string, std::string> stored;
  std::string given(" ");
  for (const std::string& name : config.names()) {
    stored[name] = config.text(name);
    if (config.is_explicit(name)) given += name + " ";
  }
  stored[kExplicitArguments] = std::move(given);
  return stored;
}

Config resumed_config(const Config& given, const std::map<std::string, std::string>& stored, const std::filesystem::path& file) {
  Config config(kTrain);
  config.set_command(given.command());
  // A default stays a default, or automatic choices would be switched off.
  const auto origins = stored.find(kExplicitArguments);
  const std::string given_then = origins == stored.end() ? "" : origins->second;
  for (const auto& [name, value] : stored) {
    if (find_option(name) == nullptr || value.empty() || is_one_of(kOfOneSitting, name)) continue;
    try {
      config.set(name, value, given_then.find(" " + name + " ") != std::string::npos ? file.string() : "default");
    } catch (const Error& e) {
      throw Error(ErrorCode::kData, e.message(), {file.string()}, "the file is damaged; start a new run");
    }
  }
  if (!given.is_explicit("device") && config.text("device") != given.text("device")) {
    // Never a silent change of device: the CPU would take hours for what a GPU had begun.
    throw Error(ErrorCode::kUsage, fmt::format("the run was on device {}", config.text("device")), {file.string()},
                fmt::format("give --device {} to go on there, or --device cpu", config.text("device")));
  }
  for (const std::string& name : given.names()) {
    if (!given.is_explicit(name)) continue;
    if (name == "batch" && given.integer(name) < 0) continue;  // whatever fits: the run has chosen
    if (name == "exist_ok") continue;                          // the run goes on in its folder in any case
    if (name == "project" && given.text("resume") == "auto") continue;  // where it was sought
    std::error_code missing;
    if (name == "model" && std::filesystem::equivalent(given.text(name), file, missing)) continue;  // run_to_resume
    const bool free = is_one_of(kFreeOnResume, name) || is_one_of(kOfOneSitting, name);
    if (!free && given.text(name) != config.text(name)) {
      throw Error(ErrorCode::kUsage,
                  fmt::format("--{} cannot change in a resumed run (it is '{}' there)", shown_name(name), config.text(name)), {},
                  "start a new run from its weights: --model <run>/weights/last.safetensors");
    }
    config.set(name, given.text(name), given.origin(name));
  }
  return config;
}

}  // namespace tessera
