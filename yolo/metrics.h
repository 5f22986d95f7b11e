// The figures of a validation, in the form of the program's JSON (docs/cli.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tessera {

struct MetricSet {
  double map = 0, map50 = 0, map75 = 0;             // AP over IoU 0.50:0.95, at 0.50, at 0.75
  double maps = -1, mapm = -1, mapl = -1;           // small, medium, large objects; -1: none, or not measured by this style
  double precision = 0, recall = 0, f1 = 0;         // at the confidence with the best mean F1
};

struct ClassFigures {
  double map = 0, map50 = 0;
  double precision = 0, recall = 0, f1 = 0;  // of this class at the confidence of MetricSet
};
struct ClassMetrics {
  std::string name;
  int64_t images = 0, instances = 0;
  ClassFigures box, mask;
};

struct LossItems {
  double box = 0, seg = 0, cls = 0, dfl = 0;  // gained, not multiplied by the batch size (spec 7.3)
};

// What the loss says of a batch, or of one rank's part of it.
struct LossReport {
  LossItems items;
  int64_t positives = 0;
  double target_score_sum = 0;  // before it is held at 1 or more
};

// Of the batch that these are the parts of, as if it had been one.
LossReport joined(std::span<const LossReport> parts);

struct SpeedMs {  // mean milliseconds an image
  double load = 0, preprocess = 0, inference = 0, loss = 0, postprocess = 0, evaluate = 0;
};

struct ValidationResult {
  std::string map_style;  // "coco" or "original"
  int64_t images = 0, instances = 0;
  MetricSet box, mask;
  LossItems loss;         // mean over batches; only when a loss was computed
  std::vector<ClassMetrics> classes;
  SpeedMs speed;
  double seconds = 0;
};

}  // namespace tessera
