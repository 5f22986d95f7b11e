// A made-up validation of COCO's kind and size, written to files and evaluated with the clock running: what `tessera bench eval`
// shows.
#pragma once

#include <cstdint>
#include <filesystem>

#include "yolo/eval/coco_eval.h"

namespace tessera {

// The defaults are the set that the peers were timed on: 5000 images with about 36,700 objects (1.2 % crowds) and 500,000
// detections, 190 MB of JSON with compressed masks, half of them near an object.
struct EvalBenchOptions {
  int64_t images = 5000;
  int height = 480, width = 640;
  int classes = 80;
  double objects_per_image = 7.35;
  int64_t detections_per_image = 100;
  uint64_t seed = 0;
};

struct EvalBenchTimes {
  double load_truth = 0, load_results = 0;  // seconds, from file to memory
  double prepare = 0;                       // truth masks from polygons, ids
  double evaluate = 0;                      // matching and all figures
  CocoSummary summary;

  double total() const { return load_truth + load_results + prepare + evaluate; }
};

struct EvalBenchResult {
  int64_t images = 0, objects = 0, detections = 0;
  int64_t bytes = 0;  // of both files
  EvalBenchTimes box, mask;
};

// Writes instances.json and results.json of the set; the same files for the same options.
void write_eval_bench_set(const std::filesystem::path& folder, const EvalBenchOptions& options);

// Generates the set in a temporary folder, evaluates boxes and masks from the files, removes it. Throws kUsage for sizes below 1
// and kIo when the disk is full.
EvalBenchResult run_eval_bench(const EvalBenchOptions& options);

}  // namespace tessera
