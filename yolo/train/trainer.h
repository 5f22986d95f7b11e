// The training loop of the original (spec 8), one named method for each part, with what it lacks: bit-exact resume from any step,
// atomic checkpoints, and a clear end when numbers stop being finite. trainer.cpp reads from top to bottom: set-up, run, epoch,
// step.
//
// Note [Several ranks]: every rank runs this loop with its part of each batch and its own copy of everything. What differs from one
// process: gradients are averaged over the ranks in the backward pass, the terms of the loss are divided by what is counted in the
// whole batch, and the detections of a validation go to rank 0. Decisions (stop, interrupted, skipped, improved) rest on numbers
// that are the same on all ranks, so all decide alike. Rank 0 alone writes the run folder and the log.
#pragma once

#include <chrono>
#include <exception>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "data/dataset.h"
#include "data/loader.h"
#include "nn/data_parallel.h"
#include "nn/io/checkpoint.h"
#include "nn/optim/schedule.h"
#include "tensor/base/interrupt.h"
#include "tensor/comm.h"
#include "yolo/config.h"
#include "yolo/io/weights.h"
#include "yolo/model.h"
#include "yolo/report/progress.h"
#include "yolo/train/event_file.h"
#include "yolo/train/loss.h"
#include "yolo/train/memory_plan.h"
#include "yolo/train/results_csv.h"
#include "yolo/train/run_folder.h"
#include "yolo/train/step_profile.h"
#include "yolo/train/train_log.h"
#include "yolo/train/train_options.h"
#include "yolo/train/train_state.h"
#include "yolo/train/train_step.h"

namespace tessera {

struct TrainSummary {
  std::filesystem::path run_folder;
  std::filesystem::path best, last;
  int64_t epochs_done = 0;
  bool interrupted = false;
  bool stopped_early = false;
  int64_t best_epoch = 0;         // 1-based, of best; 0: no validation
  double best_value = 0;          // of the metric that --best names, in that epoch
  ValidationResult validation;    // of best, or of the last epoch when nothing was validated or saved
  double seconds = 0;
  int64_t planned_peak_bytes = 0;  // of memory, as the plan has it before the first step (memory_plan.h)
  double images_per_s = 0;        // training only, median over epochs
  int64_t train_images = 0;
};

class Trainer {
 public:
  // Plans the batch of --batch -1, reads data and model, creates the run folder (or re-opens it on resume) and writes args.yaml.
  // Error(kMemory) before the folder is made: the batch does not fit. `roof`: for --profile, what this machine reaches. `ranks`:
  // the batch is split over them; all read the same data, and for a resume the same checkpoint.
  Trainer(Config config, LogStyle log, Roof roof = {}, Communicator& ranks = single_process());
  ~Trainer();

  TrainSummary fit();

  const Config& config() const { return config_; }  // of a resumed run: that of the run, with what was given anew
  const std::filesystem::path& run_folder() const { return folder_; }
  YoloSeg& model() { return *model_; }
  const ParameterArena& arena() const { return *arena_; }
  Loader& train_loader() { return *train_loader_; }

  // Called by fit() with each batch before its step, and may replace it. On a device the step before it is then still under way.
  std::function<void(int64_t epoch, int64_t index, Batch& batch)> on_batch;

  // One batch: forward, loss, backward and, when enough batches are accumulated, an update. Returns the logged items. With several
  // ranks `batch` is this one's part, and the items are those of the whole batch.
  LossItems step(const Batch& batch);

 private:
  TrainSummary run();                              // fit(), with the folder locked
  void run_epochs(TrainSummary& summary);          // up to the last, an early stop or an interruption
  bool train_epoch();                              // false: interrupted
  class Stopwatch;
  // Trains on the batches that are left of this epoch, until an interruption or until data cannot be read; returns the number of
  // images, of all ranks.
  int64_t train_batches(Progress& progress, Stopwatch& stopwatch, std::exception_ptr& unreadable);
  bool close_epoch(ValidationResult& validation);  // validates and records it; false: interrupted, and not recorded
  void make_final_figures(TrainSummary& summary);
  LoadedModel start_model(int64_t classes) const;  // of --model, --pretrained or both
  void choose_batch();                             // --batch -1
  void open_data();
  void build_model();
  void place_model();      // to its device and types, its parameters into the arena, rank 0's values to all ranks
  void build_optimizer();  // and moving average and schedule
  void build_step();       // loss, update and what else is run in every step
  void restore(const Checkpoint& checkpoint);
  void compare_with_what_is_kept();
  void refuse_complete_run() const;
  MemoryBudget own_budget() const;         // this rank's part of the machine's memory
  void check_batch();                      // Error(kMemory): the batch does not fit
  void open_run_folder(const Roof& roof);  // begins its files, or goes on with them
  StepReplay step_replay();
  void start_profile(Roof roof);
  void write_profile() const;
  void announce() const;
  int64_t own_batch() const { return options_.batch / ranks_.size(); }  // images of a batch, of this rank

  // Batch `index` of this epoch. False: the epoch has ended, or its data could not be read; then `unreadable` is the error, which
  // is thrown only when the step under way has been finished.
  bool next_batch(int64_t index, Batch& into, std::exception_ptr& unreadable);
  void draw_batch(Batch& batch) const;  // of the first few batches of a run
  void report_step(const LossItems& items, Progress& progress);
  void start_step(const Batch& batch);  // step() is these two
  LossItems finish_step();
  void follow_update(const UpdateReport& update);  // counts updates that were left out; Error(kNonFinite) after many in a row
  LossItems joined_items(const LossReport& own);   // those of the whole batch; sets interrupted_ if any rank was
  bool interrupted() const { return ranks_.alone() ? interrupt_requested() : interrupted_; }
  ValidationResult validate();  // of the averaged weights
  struct EvaluationFiles {
    bool plots = false, images = false;  // images.csv, and with plots worst_images.png
  };
  ValidationResult evaluate(YoloSeg& model, const EvaluationFiles& files);
  std::unique_ptr<YoloSeg> best_model() const;  // of the run folder, on this device
  void finish_epoch(const ValidationResult* result);
  void record_epoch(const EpochRow& row, const ValidationResult* result, bool improved);  // to log, csv and checkpoints
  bool out_of_time() const;
  bool out_of_patience() const;

  Checkpoint checkpoint() const;
  void save_last();
  bool save_is_due(double seconds_ahead) const;  // then --save-minutes will have passed since the last time
  void save_weights(const std::filesystem::path& path) const;

  Config config_;
  TrainOptions options_;
  LogStyle log_;
  Communicator& ranks_;
  Device device_;
  std::filesystem::path folder_;
  std::optional<RunFolderLock> lock_;
  std::optional<Checkpoint> resume_;

  std::unique_ptr<SegDataset> train_set_, val_set_;
  std::unique_ptr<Loader> train_loader_, val_loader_;
  std::vector<std::string> class_names_;
  int64_t data_fingerprint_ = 0;  // of the training images

  std::unique_ptr<YoloSeg> model_;
  std::unique_ptr<ParameterArena> arena_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<Schedule> schedule_;
  std::unique_ptr<SegmentationLoss> loss_;
  std::unique_ptr<DataParallel> parallel_;
  std::unique_ptr<WeightUpdate> update_;
  std::unique_ptr<TrainState> state_;
  std::unique_ptr<TrainStep> step_;
  OptimizerChoice choice_;
  double weight_decay_ = 0;

  TrainProgress at_;          // where the training stands
  ScheduleValues now_;        // of the step under way, or of the last one
  bool with_update_ = false;  // that step makes an update
  int64_t non_finite_in_a_row_ = 0;
  bool interrupted_ = false;  // some rank was interrupted; with several ranks only

  // Of rank 0 alone.
  std::unique_ptr<ResultsCsv> csv_;
  std::unique_ptr<EventFile> events_;  // null: not asked for
  std::unique_ptr<TrainLog> run_log_;
  std::vector<double> epoch_rates_;
  int64_t planned_peak_bytes_ = 0;
  std::chrono::steady_clock::time_point saved_;  // when last.safetensors was written; before the first time: when fit() began
  double validation_seconds_ = std::numeric_limits<double>::infinity();  // of the last one; before the first nobody knows
  std::unique_ptr<StepProfile> profile_;  // null: not asked for, or written
};

}  // namespace tessera
