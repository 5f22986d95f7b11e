// log.jsonl: one JSON object for each step and for each epoch (docs/cli.md); under --log json epochs go to stderr as well.
#pragma once

#include <filesystem>

#include "nn/optim/schedule.h"
#include "yolo/report/progress.h"
#include "yolo/train/results_csv.h"

namespace tessera {

class TrainLog {
 public:
  // Goes on with the file after batch `batches` of 0-based epoch `epoch`: lines of steps that will run again are dropped, so that a
  // resumed run logs each step once. Error(kIo) when the file cannot be written.
  TrainLog(std::filesystem::path file, LogStyle style, int64_t epoch, int64_t batches);
  void step(int64_t epoch, int64_t batch, const LossItems& items, const ScheduleValues& values);
  void epoch(const EpochRow& row, const ValidationResult* result, double images_per_s);

 private:
  void append(const std::string& line);

  std::filesystem::path file_;
  LogStyle style_;
};

}  // namespace tessera
