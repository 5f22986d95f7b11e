// results.csv: one row an epoch with the original's columns (spec 8.10). A resumed run drops rows of epochs that will run again, so no
// epoch stands twice.
#pragma once

#include <array>
#include <filesystem>
#include <string_view>
#include <vector>

#include "yolo/metrics.h"

namespace tessera {

struct EpochRow {
  int64_t epoch = 0;       // 1-based
  double seconds = 0;      // since the start of the run, interruptions not counted
  LossItems train, val;
  MetricSet box, mask;
  std::array<double, 3> lr{};
  bool validated = true;
};

// The columns beside the epoch.
struct Series {
  std::string_view name;
  double value;
  bool of_validation;
};
std::vector<Series> series_of(const EpochRow& row);

class ResultsCsv {
 public:
  // Rows of epochs > keep_epochs in an existing file are removed (0: the file starts empty).
  ResultsCsv(std::filesystem::path path, int64_t keep_epochs);
  void append(const EpochRow& row);
  const std::vector<EpochRow>& rows() const { return rows_; }

 private:
  void write() const;

  std::filesystem::path path_;
  std::vector<EpochRow> rows_;
};

}  // namespace tessera
