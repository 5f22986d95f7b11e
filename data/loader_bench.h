// How fast the loader makes training samples, and where the time goes.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"

namespace tessera {

struct LoaderBench {
  int64_t samples = 0;
  int threads = 1;
  double images_per_s = 0;  // all threads together, by the clock
  double core_ms = 0;       // CPU time of one sample
  // Of core_ms: images from files; polygons and boxes; collage, warp and colours; masks; the rest is joining batches.
  double decode_ms = 0, labels_ms = 0, pixels_ms = 0, rasterize_ms = 0;
  int64_t decodes = 0;     // images decoded while measuring
  int64_t disk_reads = 0;  // images that came from the disk cache instead
};

struct LoaderBenchOptions {
  int64_t samples = 256;
  int64_t warmup = 64;  // samples before measuring: fills the mosaic buffer
  int64_t batch = 16;
  int threads = 1;
};

// Runs the data set through a Loader, epoch after epoch, until `samples` are made.
LoaderBench run_loader_bench(const SegDataset& dataset, const LoaderBenchOptions& options = {});

}  // namespace tessera
