#include "data/loader_bench.h"

#include <chrono>
#include <ctime>

#include "data/loader.h"

namespace tessera {

namespace {
double process_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}
}  // namespace

LoaderBench run_loader_bench(const SegDataset& dataset, const LoaderBenchOptions& options) {
  LoaderOptions loader_options;
  loader_options.batch = options.batch;
  loader_options.threads = options.threads;
  loader_options.shuffle = true;
  Loader loader(dataset, loader_options);
  int epoch = 0;
  loader.start_epoch(0);
  Batch batch;
  const auto pull = [&](int64_t wanted) {
    int64_t made = 0;
    while (made < wanted) {
      if (loader.next(batch))
        made += batch.size();
      else
        loader.start_epoch(++epoch);
    }
    return made;
  };
  pull(options.warmup);
  dataset.take_timing();
  const int64_t misses = dataset.cache_statistics().misses;
  const auto disk_reads = [&] { return dataset.disk_cache() ? dataset.disk_cache()->statistics().hits : 0; };
  const int64_t read_before = disk_reads();
  const double cpu = process_seconds();
  const auto begin = std::chrono::steady_clock::now();
  const int64_t made = pull(options.samples);
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  LoaderBench b;
  b.samples = made;
  b.threads = options.threads;
  b.images_per_s = double(made) / wall;
  b.core_ms = (process_seconds() - cpu) * 1e3 / double(made);
  const SegDataset::Timing t = dataset.take_timing();
  const auto share = [&](double part) { return part * 1e3 / double(made); };
  b.decode_ms = share(t.decode), b.labels_ms = share(t.labels), b.pixels_ms = share(t.pixels), b.rasterize_ms = share(t.rasterize);
  b.disk_reads = disk_reads() - read_before;
  b.decodes = dataset.cache_statistics().misses - misses - b.disk_reads;
  return b;
}

}  // namespace tessera
