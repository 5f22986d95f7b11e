// Which epoch is the best so far, by which figure of its validation, and when to wait for a better one no longer (spec 8.8).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "nn/io/checkpoint.h"
#include "yolo/metrics.h"

namespace tessera {

// What --best names: the figure that epochs are compared by, on values rounded to five decimals, as the original's are.
struct BestMetric {
  std::string_view name;
  double (*of)(const ValidationResult& result);
};
std::span<const BestMetric> best_metrics();
const BestMetric& best_metric(std::string_view name);  // of a checked argument; another name is a bug

struct BestEpoch {
  double value = 0;  // of the metric
  int64_t epoch =
      -1;  // 0-based, the last one that was better than all before, or for want of a value above 0 the last; -1: none yet
  int64_t kept = -1;  // whose weights are kept: the last one with the best value

  // True: this epoch's weights are the best, ties included, as in the original. Patience counts from strict improvements only.
  bool take(int64_t at, double v);

  // With `done` epochs behind; patience 0 has no end.
  bool too_long_ago(int64_t done, int64_t patience) const { return patience > 0 && epoch >= 0 && done - (epoch + 1) >= patience; }

  void save(CheckpointMeta& meta) const;
  static BestEpoch restored(const CheckpointMeta& meta);
};

// Name of the metric that made the best weights of a checkpoint's run.
std::string best_metric_of(const CheckpointMeta& meta);

// "epoch 12; best by mask-map, epoch 9: 0.4312": where the weights of a file stand in their training; empty: they are of none.
std::string describe_training(const CheckpointMeta& meta);

}  // namespace tessera
