#include "yolo/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "nn/layers/batch_norm2d.h"
#include "tensor/augment.h"
#include "tensor/backend.h"
#include "tensor/base/file.h"
#include "tensor/base/memory.h"
#include "tensor/base/parallel.h"
#include "tensor/base/shell_word.h"
#include "yolo/config_values.h"
#include "yolo/eval/evaluator.h"
#include "yolo/report/batch_images.h"
#include "yolo/train/memory_request.h"
#include "yolo/train/multi_scale.h"
#include "yolo/train/results_plot.h"
#include "yolo/train/resumed_config.h"
#include "yolo/train/run_plots.h"
#include "yolo/train/training_data.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

constexpr double kMaxGradNorm = 10.0;    // L2 norm that gradients are clipped to (spec 8.6)
constexpr int64_t kNonFiniteLimit = 20;  // skipped updates in a row after which the run gives up

// Gives the cached memory of a device back at both ends of a scope, since its blocks do not merge into larger ones. The host's
// memory is one range, which is kept.
class DeviceMemoryTrim {
 public:
  explicit DeviceMemoryTrim(Device device) : device_(device) { trim(); }
  ~DeviceMemoryTrim() { trim(); }
  DeviceMemoryTrim(const DeviceMemoryTrim&) = delete;
  DeviceMemoryTrim& operator=(const DeviceMemoryTrim&) = delete;

 private:
  void trim() const {
    if (device_ != Device::cpu()) allocator_for(device_).trim();
  }
  Device device_;
};

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// The mean over count + 1 batches, from that over `count` of them and one more.
LossItems mean_with(const LossItems& mean, int64_t count, const LossItems& more) {
  const double n = double(count);
  return {(mean.box * n + more.box) / (n + 1), (mean.seg * n + more.seg) / (n + 1), (mean.cls * n + more.cls) / (n + 1),
          (mean.dfl * n + more.dfl) / (n + 1)};
}

std::string epoch_and_losses(int64_t epoch, int64_t epochs, const LossItems& l) {
  return fmt::format("epoch {}/{}  box {:.4g}  seg {:.4g}  cls {:.4g}  dfl {:.4g}", epoch, epochs, l.box, l.seg, l.cls, l.dfl);
}

}  // namespace

// Adds the time that passes to a total, each time it is told to.
class Trainer::Stopwatch {
 public:
  explicit Stopwatch(double& total) : total_(total) {}
  void add() { total_ += seconds_since(std::exchange(since_, Clock::now())); }

 private:
  double& total_;  // seconds
  Clock::time_point since_ = Clock::now();
};

Trainer::Trainer(Config config, LogStyle log, Roof roof, Communicator& ranks)
    : config_(std::move(config)), log_(ranks.leader() ? log : LogStyle::kQuiet), ranks_(ranks) {
  if (config_.is_set("resume")) {
    const fs::path file = checkpoint_to_resume(run_to_resume(config_), config_.text("project"));
    folder_ = file.parent_path().parent_path();
    if (ranks_.leader()) lock_.emplace(folder_);
    resume_ = load_to_resume(file);
    config_ = resumed_config(config_, resume_->meta.args, file);
  }
  device_ = device_of(config_, ranks_.local_rank(), ranks_.local_size());
  if (!ranks_.alone() && config_.flag("rect")) {
    log_line(log_, "warning: --rect is for a single process, as in the original; batches are square and shuffled");
    config_.set("rect", "false", "several ranks");
  }
  if (config_.integer("batch") < 0) choose_batch();
  options_ = train_options(config_);
  if (options_.batch % ranks_.size() != 0) {
    const int64_t n = ranks_.size();
    throw Error(ErrorCode::kUsage, fmt::format("a batch of {} cannot be split evenly over {} ranks", options_.batch, n), {},
                fmt::format("give --batch {}", (options_.batch + n - 1) / n * n));
  }
  open_data();
  build_model();
  place_model();
  build_optimizer();
  build_step();
  check_batch();
  if (ranks_.leader()) {
    if (!resume_) {
      folder_ = create_run_folder(options_.project, options_.name, options_.exist_ok);
      lock_.emplace(folder_);
    }
    create_folder(folder_ / "weights");
  }
  if (resume_) restore(*resume_);
  if (ranks_.leader()) open_run_folder(roof);
  resume_.reset();
}

Trainer::~Trainer() = default;

// --- set-up ------------------------------------------------------------------------------------------------------------------

void Trainer::open_run_folder(const Roof& roof) {
  if (!resume_) {
    if (const std::string kept = set_aside_earlier_training(folder_); !kept.empty()) log_line(log_, kept);
    write_file_atomic(folder_ / "args.yaml", config_.to_yaml());
    if (options_.plots) draw_dataset_labels(folder_, *train_set_);
  }
  csv_ = std::make_unique<ResultsCsv>(folder_ / "results.csv", at_.epoch);
  if (config_.flag("tensorboard")) events_ = std::make_unique<EventFile>(folder_, csv_->rows());
  run_log_ = std::make_unique<TrainLog>(folder_ / "log.jsonl", log_, at_.epoch, at_.batch);
  if (config_.integer("profile") > 0) start_profile(roof);
  announce();
}

// Comes before the data set and the loader, which want to know the batch. So it reads the number of classes and the network itself.
void Trainer::choose_batch() {
  const int64_t nc = config_.flag("single_cls") ? 1 : class_count(config_);
  const LoadedModel loaded = start_model(nc);
  std::string reason;
  // Adam keeps one buffer more than SGD; which of them "auto" takes depends on the number of images.
  const UpdateRule rule = config_.text("optimizer") == "SGD" ? UpdateRule::kSgd : UpdateRule::kAdamW;
  MemoryPlan plan(memory_request(config_, device_, loaded.model->spec(), rule, nullptr, nullptr));
  const int64_t n = ranks_.size();
  int64_t batch = n * plan_batch(plan, own_budget(), std::max<int64_t>(1, config_.integer("nbs") / n), reason);
  ranks_.broadcast(batch, 0, "the planned batch");
  log_line(log_, reason);
  if (n > 1) log_line(log_, fmt::format("batch {}: that of each rank, times {} ranks", batch, n));
  config_.set("batch", std::to_string(batch), "planned from memory");
}

MemoryBudget Trainer::own_budget() const {
  MemoryBudget budget = memory_budget(device_);
  const int64_t n = ranks_.local_size();
  if (device_ != Device::cpu() || n == 1 || budget.bytes <= 0) return budget;
  const int64_t held = resident_bytes();
  budget.bytes = held + (budget.bytes - held) / n;
  budget.what += fmt::format(" (a rank's part, of {} here)", n);
  return budget;
}

// Before anything is written: a run that would run out of memory does not begin.
void Trainer::check_batch() {
  MemoryPlan plan(memory_request(config_, device_, model_->spec(), choice_.rule, train_set_.get(), val_set_.get()));
  planned_peak_bytes_ = check_memory(plan, own_budget(), own_batch(), train_set_->size(), options_.imgsz);
}

void Trainer::open_data() {
  if (config_.text("augment") == "cuda" && augment_kernel(device_.kind) == nullptr) {
    throw Error(ErrorCode::kUsage, "--augment cuda is for a CUDA device", {}, "use --augment cpu, or --device cuda");
  }
  try {
    train_set_ = open_split(config_, "train", true, log_, ranks_.local_size());
  } catch (const Error& e) {
    // A run remembers --data as it was given, which may be a path from the folder where it began.
    if (!resume_ || e.code() != ErrorCode::kData || !e.where().file.empty()) throw;
    throw Error(e.code(), e.message(), {}, "say where it is now with --data, or go on from the folder where the run began");
  }
  val_set_ = open_split(config_, "val", false, log_);
  class_names_ = train_set_->names();
  data_fingerprint_ = fingerprint(*train_set_);
  LoaderOptions train;
  train.batch = own_batch();
  train.rank = ranks_.rank();
  train.world = ranks_.size();
  train.threads = int(options_.workers);
  train.shuffle = !config_.flag("rect");
  train_loader_ = std::make_unique<Loader>(*train_set_, train);
  LoaderOptions val = train;
  val.batch = 2 * own_batch();
  val.fill = false;
  val.shuffle = false;
  val_loader_ = std::make_unique<Loader>(*val_set_, val);
}

void Trainer::build_model() {
  if (resume_) {
    model_ = std::make_unique<YoloSeg>(spec_of_run(*resume_, config_));
    const std::string renamed = compare_classes(class_names_, resume_->meta, config_.text("resume"));
    if (!renamed.empty()) log_line(log_, renamed);
    return;
  }
  LoadedModel loaded = start_model(config_.flag("single_cls") ? 1 : int64_t(class_names_.size()));
  for (const std::string& w : loaded.warnings) log_line(log_, "warning: " + w);
  if (loaded.pretrained) log_line(log_, "weights: " + loaded.report.summary());
  model_ = std::move(loaded.model);
}

LoadedModel Trainer::start_model(int64_t classes) const {
  const std::string &weights = config_.text("pretrained"), &model = config_.text("model");
  const bool untrained = weights == "false", named = !weights.empty() && !untrained;
  const bool network_given = !named || config_.is_explicit("model");  // else the network is that of the weights
  LoadedModel loaded =
      load_model(network_given ? model : weights, {classes, "", uint64_t(config_.integer("seed")), named ? weights : ""});
  if (untrained && loaded.pretrained) {
    throw Error(ErrorCode::kUsage, fmt::format("--pretrained false, but {} holds weights", model), {},
                "give a scale (yolov8n-seg) or a model yaml to start untrained");
  }
  return loaded;
}

void Trainer::place_model() {
  model_->freeze(options_.frozen_layers);
  if (model_->counts().trainable == 0) {
    throw Error(ErrorCode::kUsage, fmt::format("freeze={}: nothing is left to train", config_.text("freeze")), {}, "leave one layer out");
  }
  model_->to(device_);
  model_->set_compute_type(compute_type_of(config_));
  model_->set_recompute(recompute_of(config_, device_));
  arena_ = std::make_unique<ParameterArena>(*model_);
  parallel_ = std::make_unique<DataParallel>(*arena_, ranks_);
  parallel_->broadcast_values();
  if (!ranks_.alone() && config_.flag("sync_bn")) synchronize_batch_norm(*model_, ranks_);
}

void Trainer::build_optimizer() {
  choice_ = choose_optimizer(config_, train_set_->size(), int64_t(class_names_.size()), resume_ ? &resume_->meta : nullptr);
  switch (choice_.rule) {
    case UpdateRule::kSgd: optimizer_ = std::make_unique<Sgd>(*arena_, true); break;
    case UpdateRule::kAdam: optimizer_ = std::make_unique<Adam>(*arena_, false, choice_.momentum); break;
    case UpdateRule::kAdamW: optimizer_ = std::make_unique<Adam>(*arena_, true, choice_.momentum); break;
  }
  ema_ = std::make_unique<Ema>(*arena_);
  schedule_ = std::make_unique<Schedule>(schedule_config(config_, choice_, train_loader_->batches()));
  weight_decay_ = scaled_weight_decay(options_);
}

void Trainer::build_step() {
  loss_ = std::make_unique<SegmentationLoss>(options_.gains, model_->strides(), &ranks_);
  std::array<double, kTrainedGroups> decay{};
  decay[size_t(ParamGroup::kWeight)] = weight_decay_;
  update_ = std::make_unique<WeightUpdate>(*arena_, *optimizer_, *ema_, decay, kMaxGradNorm,
                                           LossScaling{.on = compute_type_of(config_) == DType::kF16});
  state_ = std::make_unique<TrainState>(*model_, *arena_, *update_, *optimizer_, *ema_);
  step_ = std::make_unique<TrainStep>(*model_, *loss_, *parallel_, *update_, step_replay(), !config_.flag("sync_bn"));
}

// Steps are not recorded for a profile, which wants the single calls, with ranks whose messages go over the host, which a recording
// does not hold, and with sizes that change from batch to batch, so that a recording would hardly ever be used again.
StepReplay Trainer::step_replay() {
  StepReplay::MakeRecorder make;
  const bool recordable = ranks_.alone() || ranks_.in_stream(device_);
  if (config_.flag("graph") && config_.integer("profile") == 0 && recordable && !options_.multi_scale)
    make = [this] { return backend_for(device_).recorder(); };
  return {std::move(make), [this](const std::string& line) { log_line(log_, line); }, ranks_};
}

void Trainer::announce() const {
  const ScheduleConfig s = schedule_config(config_, choice_, train_loader_->batches());
  log_line(log_, fmt::format("{}: {} parameters, {} classes; {}: {} training and {} validation images", model_->spec().name,
                             model_->counts().parameters, class_names_.size(), config_.text("data"), train_set_->size(), val_set_->size()));
  log_line(log_, fmt::format("{}: lr0 {:g}, momentum {:g}, weight decay {:g}{}; batch {}, {} batches an epoch; run folder {}",
                             optimizer_->name(), s.lr0, choice_.momentum, weight_decay_,
                             choice_.reason.empty() ? "" : " (" + choice_.reason + ")", options_.batch, train_loader_->batches(),
                             folder_.string()));
  if (!ranks_.alone()) {
    log_line(log_, fmt::format("{} ranks, {} images each in a batch, {} threads each; batch norm statistics {}", ranks_.size(),
                               own_batch(), compute_threads(),
                               config_.flag("sync_bn") ? "of all" : "of each rank, running ones of rank 0"));
  }
  if (config_.flag("rect")) {
    log_line(log_, fmt::format("rect: {} shapes of batches, in one order; no mosaic, mixup or cutmix",
                               image_sizes(config_, train_set_.get()).size()));
  }
  if (options_.multi_scale) {
    const MultiScaleRange range = multi_scale_range(options_.imgsz);
    log_line(log_, fmt::format("multi_scale: batches of {} to {} pixels", range.least, range.largest));
  }
  if (at_.epoch > 0 || at_.batch > 0) log_line(log_, fmt::format("resuming at epoch {}, batch {}", at_.epoch + 1, at_.batch));
}

// --- the run -----------------------------------------------------------------------------------------------------------------

TrainSummary Trainer::fit() {
  const TrainSummary summary = run();
  lock_.reset();
  return summary;
}

TrainSummary Trainer::run() {
  TrainSummary summary;
  summary.run_folder = folder_;
  summary.last = folder_ / "weights" / "last.safetensors";
  summary.best = folder_ / "weights" / "best.safetensors";
  summary.train_images = train_set_->size();
  summary.planned_peak_bytes = planned_peak_bytes_;
  saved_ = Clock::now();
  run_epochs(summary);
  if (profile_ && profile_->started()) write_profile();  // a run shorter than what was asked for
  summary.epochs_done = at_.epoch;
  summary.seconds = at_.seconds;
  summary.images_per_s = median(epoch_rates_);
  if (summary.interrupted) return summary;
  if (options_.plots && ranks_.leader()) draw_results(folder_, csv_->rows());
  make_final_figures(summary);
  return summary;
}

void Trainer::run_epochs(TrainSummary& summary) {
  // A resumed run may have made its last epoch already.
  summary.stopped_early = at_.epoch > 0 && at_.batch == 0 && (out_of_time() || out_of_patience());
  while (at_.epoch < options_.epochs && !summary.stopped_early) {
    if (!train_epoch() || !close_epoch(summary.validation)) {
      if (options_.save && ranks_.leader()) save_last();
      summary.interrupted = true;
      return;
    }
    summary.stopped_early = out_of_time() || out_of_patience();
    ranks_.broadcast(summary.stopped_early, 0, "the decision to go on");  // the clocks differ
  }
}

bool Trainer::out_of_time() const { return options_.hours > 0 && at_.seconds > options_.hours * 3600; }
bool Trainer::out_of_patience() const { return options_.validate && at_.best.too_long_ago(at_.epoch, options_.patience); }

void Trainer::make_final_figures(TrainSummary& summary) {
  bool kept = options_.save && options_.validate && ranks_.leader() && fs::exists(summary.best);
  ranks_.broadcast(kept, 0, "whether there are best weights");
  if (kept) {
    // The figures that are reported belong to the file that is kept.
    try {
      summary.validation = evaluate(*best_model(), {.plots = options_.plots, .images = true});
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kInterrupted) throw;
      throw Error(ErrorCode::kInterrupted, "interrupted in the final validation; all epochs are saved", {},
                  config_.command() + " --resume " + shell_word(folder_.string()));
    }
    summary.best_epoch = at_.best.kept + 1;
    summary.best_value = at_.best.value;
  } else if (summary.validation.images == 0) {
    summary.validation = validate();
  }
}

std::unique_ptr<YoloSeg> Trainer::best_model() const {
  std::unique_ptr<YoloSeg> model;
  if (ranks_.leader()) {
    model = std::move(load_model((folder_ / "weights" / "best.safetensors").string()).model);
  } else {
    model = std::make_unique<YoloSeg>(model_->spec());
  }
  if (!ranks_.alone()) broadcast_state(*model, ranks_);
  model->to(device_);
  return model;
}

// --- an epoch ----------------------------------------------------------------------------------------------------------------

bool Trainer::train_epoch() {
  const auto start = Clock::now();
  Stopwatch stopwatch(at_.seconds);
  model_->train(true);
  Progress progress(log_, train_loader_->batches());
  train_loader_->start_epoch(at_.epoch, at_.batch);
  train_loader_->take_wait_seconds();  // what the loader was waited for until now is no part of this epoch
  if (profile_) profile_->resume();
  std::exception_ptr unreadable;
  const int64_t images = train_batches(progress, stopwatch, unreadable);
  if (profile_) profile_->pause();
  progress.finish("");
  stopwatch.add();
  if (const double seconds = seconds_since(start); images > 0 && seconds > 0) epoch_rates_.push_back(double(images) / seconds);
  if (unreadable) {
    if (options_.save && ranks_.leader() && at_.batch > 0) save_last();
    std::rethrow_exception(unreadable);
  }
  return !interrupted();
}

int64_t Trainer::train_batches(Progress& progress, Stopwatch& stopwatch, std::exception_ptr& unreadable) {
  int64_t images = 0;
  const bool prefetches = device_ != Device::cpu();  // a device is given its next batch before anybody waits for its step
  Batch batch, ahead;
  for (bool more = next_batch(at_.batch, batch, unreadable); more;) {
    start_step(batch);
    if (prefetches && (more = next_batch(at_.batch + 1, ahead, unreadable))) step_->prefetch(ahead);
    const LossItems items = finish_step();
    draw_batch(batch);
    images += batch.size() * ranks_.size();
    at_.running = mean_with(at_.running, at_.batch, items);
    ++at_.batch;
    report_step(items, progress);
    if (interrupted()) break;
    if (at_.batch < train_loader_->batches() && save_is_due(0)) {
      stopwatch.add();
      save_last();
    }
    if (prefetches) {
      batch = std::move(ahead);
    } else {
      more = next_batch(at_.batch, batch, unreadable);
    }
  }
  return images;
}

bool Trainer::next_batch(int64_t index, Batch& into, std::exception_ptr& unreadable) {
  bool there = false;
  try {
    there = index < train_loader_->batches() && train_loader_->next(into);
  } catch (const Error&) {
    unreadable = std::current_exception();
  }
  if (there && options_.multi_scale) {
    const int64_t side = multi_scale_side(options_.imgsz, uint64_t(options_.seed), at_.epoch, index);
    into.resized = multi_scale_input({int(into.height()), int(into.width())}, side);
  }
  if (there && on_batch) on_batch(at_.epoch, index, into);
  return there;
}

void Trainer::draw_batch(Batch& batch) const {
  if (!ranks_.leader() || !options_.plots || at_.epoch > 0 || at_.batch >= kPlottedBatches) return;
  if (batch.tiles) batch.images = step_->images().to(Device::cpu());
  draw_label_batch(folder_ / fmt::format("train_batch{}.png", at_.batch), batch, class_names_);
}

void Trainer::report_step(const LossItems& items, Progress& progress) {
  progress.update(at_.batch, epoch_and_losses(at_.epoch + 1, options_.epochs, at_.running));
  if (run_log_) run_log_->step(at_.epoch + 1, at_.batch, items, now_);
  if (profile_ && profile_->step_done(train_loader_->take_wait_seconds())) {
    progress.finish("");
    write_profile();
    profile_.reset();
  }
}

bool Trainer::save_is_due(double seconds_ahead) const {
  return ranks_.leader() && options_.save && options_.save_minutes > 0 &&
         seconds_since(saved_) + seconds_ahead > options_.save_minutes * 60;
}

bool Trainer::close_epoch(ValidationResult& validation) {
  if (!options_.validate && at_.epoch + 1 < options_.epochs) {
    finish_epoch(nullptr);
    return true;
  }
  if (save_is_due(validation_seconds_)) save_last();  // nothing is saved within a validation
  const auto start = Clock::now();
  try {
    validation = validate();
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kInterrupted) return false;
    if (options_.save && ranks_.leader()) save_last();  // the epoch's training is in it; a resume validates first
    throw;
  }
  validation_seconds_ = seconds_since(start);
  at_.seconds += validation_seconds_;
  finish_epoch(&validation);
  return true;
}

void Trainer::finish_epoch(const ValidationResult* result) {
  EpochRow row;
  row.epoch = at_.epoch + 1;
  row.seconds = at_.seconds;
  row.train = at_.running;
  row.lr = now_.lr;
  row.validated = result != nullptr;
  bool improved = false;
  if (result != nullptr) {
    row.val = result->loss;
    row.box = result->box;
    row.mask = result->mask;
    improved = at_.best.take(at_.epoch, best_metric(options_.best).of(*result));
  }
  ++at_.epoch;
  at_.batch = 0;
  at_.running = {};
  if (!parallel_->in_step()) {
    log_line(log_, "warning: the weights of the ranks differ; do all of them run the same program on the same kind of CPU?");
  }
  if (ranks_.leader()) record_epoch(row, result, improved);
}

void Trainer::record_epoch(const EpochRow& row, const ValidationResult* result, bool improved) {
  const double rate = epoch_rates_.empty() ? 0 : epoch_rates_.back();
  const double left = at_.seconds / double(at_.epoch) * double(options_.epochs - at_.epoch);
  std::string line = epoch_and_losses(row.epoch, options_.epochs, row.train);
  if (result != nullptr) {
    line += fmt::format("  |  box mAP50 {:.3f} mAP {:.3f}  mask mAP50 {:.3f} mAP {:.3f}{}", row.box.map50, row.box.map, row.mask.map50,
                        row.mask.map, improved ? " *" : "");
  }
  line += fmt::format("  |  {:.1f} img/s, {} left, {} MiB", rate, format_duration(left), peak_resident_bytes() >> 20);
  if (log_ == LogStyle::kTerminal || log_ == LogStyle::kLines) log_line(log_, line);
  run_log_->epoch(row, result, rate);
  csv_->append(row);
  if (events_) events_->append(row);
  if (!options_.save) return;
  // last.safetensors closes the epoch: killed before it, a resume makes the epoch and its other files again.
  if (improved || !options_.validate) save_weights(folder_ / "weights" / "best.safetensors");
  if (options_.save_period > 0 && (row.epoch - 1) % options_.save_period == 0) {
    save_weights(folder_ / "weights" / fmt::format("epoch{}.safetensors", row.epoch - 1));
  }
  save_last();
}

// --- a step ------------------------------------------------------------------------------------------------------------------

LossItems Trainer::step(const Batch& batch) {
  start_step(batch);
  return finish_step();
}

void Trainer::start_step(const Batch& batch) {
  const int64_t index = at_.batch + train_loader_->batches() * at_.epoch;  // of the batch, in the whole run
  now_ = schedule_->at(at_.epoch, at_.batch);
  with_update_ = index - at_.last_step >= now_.accumulate;
  step_->start(batch, now_, with_update_);
  if (with_update_) at_.last_step = index;
}

LossItems Trainer::finish_step() {
  const StepResult result = step_->finish();
  if (with_update_) follow_update(result.update);
  return joined_items(result.loss);
}

void Trainer::follow_update(const UpdateReport& update) {
  if (update.made) {
    non_finite_in_a_row_ = 0;
    return;
  }
  // The update was skipped: the gradients are dropped and the weights stay as they were. In fp16 that is how the loss scale is
  // found.
  ++at_.skipped_steps;
  const std::string scale = config_.text("precision") == "fp16" ? fmt::format(", loss scale {:g} from here on", update.scale) : "";
  log_line(log_, fmt::format("epoch {}, batch {}: gradient of '{}' is not finite; update skipped ({} so far){}", at_.epoch + 1,
                             at_.batch + 1, update.first_bad, at_.skipped_steps, scale));
  if (++non_finite_in_a_row_ >= kNonFiniteLimit) {
    throw Error(ErrorCode::kNonFinite,
                fmt::format("{} updates in a row had a gradient that is not finite (first bad tensor: {}), epoch {}",
                            kNonFiniteLimit, update.first_bad, at_.epoch + 1),
                {}, "lower lr0; the last good state is in weights/last.safetensors");
  }
}

LossItems Trainer::joined_items(const LossReport& own) {
  struct Part {
    LossReport loss;
    bool interrupted;
  };
  std::vector<LossReport> losses;
  for (const Part& p : ranks_.all_gather(Part{own, interrupt_requested()}, "the loss's items")) {
    losses.push_back(p.loss);
    interrupted_ = interrupted_ || p.interrupted;
  }
  return joined(losses).items;
}

// --- validation --------------------------------------------------------------------------------------------------------------

ValidationResult Trainer::validate() {
  // Training and validation need blocks of different sizes. Were the cache of the one not given back before the other, the peak
  // would be the sum of both.
  step_->release();
  const DeviceMemoryTrim trim(device_);
  ema_->swap();
  struct SwapBack {
    Ema& ema;
    ~SwapBack() { ema.swap(); }
  } const swap_back{*ema_};
  // Plots are drawn after the first epoch, for a first look. Later ones are those of the best weights, in make_final_figures(), or
  // where none are kept, those of the last epoch.
  const bool best_follows = options_.save && options_.validate, last = !best_follows && at_.epoch + 1 >= options_.epochs;
  return evaluate(*model_, {.plots = options_.plots && (at_.epoch == 0 || last), .images = last});
}

ValidationResult Trainer::evaluate(YoloSeg& model, const EvaluationFiles& files) {
  EvaluatorOptions options;
  options.iou = options_.iou;
  options.max_detections = options_.max_det;
  options.style = options_.original_map ? MapStyle::kOriginal : MapStyle::kCoco;
  const Evaluator evaluator(class_names_, options);
  Progress progress(log_, val_set_->size());
  EvaluatorHooks hooks;
  const SegmentationLoss own_loss(options_.gains, model.strides());  // the evaluator joins
  hooks.loss = [&](const RawOutputs& outputs, const Batch& batch) { return own_loss(outputs, batch).report(); };
  hooks.progress = [&](int64_t done, int64_t) { progress.update(done, "validating"); };
  hooks.stop = interrupt_requested;
  const fs::path folder = ranks_.leader() ? folder_ : fs::path();
  std::optional<ValidationPlots> plots;
  if (files.plots) plots.emplace(folder, class_names_, double(options.confidence)).listen(hooks);
  FailingImages failing(folder, *val_set_, files.plots);
  if (files.images) failing.listen(hooks);
  ValidationResult result = evaluator.run(model, *val_set_, *val_loader_, hooks, ranks_);
  progress.finish("");
  if (plots) plots->finish(ranks_);
  if (files.images) failing.finish();
  return result;
}

// --- profile -----------------------------------------------------------------------------------------------------------------

void Trainer::start_profile(Roof roof) {
  profile_ = std::make_unique<StepProfile>(device_, config_.integer("profile"), roof);
  profile_->name(step_.get(), "input", "");
  profile_->name(*model_);
  profile_->name(loss_.get(), "loss", "loss");
  profile_->name(update_.get(), "optimizer", "optimizer");
}

void Trainer::write_profile() const {
  const Profile p = profile_->result();
  write_file_atomic(folder_ / "profile.csv", profile_csv(p));
  if (log_ == LogStyle::kTerminal || log_ == LogStyle::kLines) log_line(log_, fmt::format("\n{}", format_profile(p)));
}

// --- checkpoints -------------------------------------------------------------------------------------------------------------

Checkpoint Trainer::checkpoint() const {
  Checkpoint c;
  describe_model(*model_, class_names_, c.meta);
  save_progress(at_, c.meta);
  save_choice(choice_, c.meta);
  c.meta.args = stored_arguments(config_);
  c.meta.counters["ranks"] = ranks_.size();
  c.meta.counters["data.images"] = train_set_->size();
  c.meta.counters["data.fingerprint"] = data_fingerprint_;
  return c;
}

void Trainer::save_last() {
  Checkpoint c = checkpoint();
  state_->save(c);
  save_checkpoint(folder_ / "weights" / "last.safetensors", c);
  saved_ = Clock::now();
}

void Trainer::save_weights(const fs::path& path) const {
  Checkpoint c = checkpoint();
  c.model = state_->averaged_weights();
  save_checkpoint(path, c);
}

void Trainer::restore(const Checkpoint& c) {
  state_->restore(c, (folder_ / "weights" / "last.safetensors").string());
  at_ = progress_of(c.meta);
  const auto counter = [&](const char* name) { return c.meta.counters.contains(name) ? c.meta.counters.at(name) : 0; };
  if (const int64_t ranks = counter("ranks"); ranks > 0 && ranks != ranks_.size()) {
    log_line(log_, fmt::format("note: the run had {} ranks and goes on with {}: not to the same bits", ranks, ranks_.size()));
  }
  if (const int64_t images = counter("data.images"); images > 0 && counter("data.fingerprint") != data_fingerprint_) {
    log_line(log_, fmt::format("note: the training data has changed since ({} images then, {} now): the run goes on with it, not to the same bits",
                               images, train_set_->size()));
  }
  const int64_t batches = train_loader_->batches(), then = (counter("data.images") + options_.batch - 1) / options_.batch;
  change_batches(at_, then > 0 ? then : batches, batches);  // older files do not tell how many there were
  if (at_.batch > 0) now_ = schedule_->at(at_.epoch, at_.batch - 1);  // for the epoch's row in results.csv, if no batch is left
  compare_with_what_is_kept();
  refuse_complete_run();
}

// Epochs that are worse than weights which nobody has any more are the best there are.
void Trainer::compare_with_what_is_kept() {
  if (!options_.save || at_.best.kept < 0) return;
  const std::string why = ranks_.leader() ? why_lost(folder_ / "weights" / "best.safetensors") : "";
  bool lost = !why.empty();
  ranks_.broadcast(lost, 0, "whether the best weights are lost");
  if (ranks_.leader() && lost) log_line(log_, "note: " + why + "; the best epoch is sought among those from here on");
  if (lost) at_.best = {};
}

void Trainer::refuse_complete_run() const {
  const bool stopped = at_.batch == 0 && (out_of_time() || out_of_patience());
  if (at_.epoch < options_.epochs && !stopped) return;
  if (at_.batch == 0 && reported_epochs(folder_) != at_.epoch) return;  // ended before its final figures: those are made now
  const bool all = at_.epoch >= options_.epochs;
  const std::string name = all ? "epochs" : out_of_time() ? "time" : "patience";
  throw Error(ErrorCode::kUsage,
              all ? fmt::format("the run is complete: {} of {} epochs", at_.epoch, options_.epochs)
                  : fmt::format("the run is complete: --{} {} ended it after epoch {}", name, config_.text(name), at_.epoch),
              {}, fmt::format("give a larger --{} to go on", name));
}

}  // namespace tessera
