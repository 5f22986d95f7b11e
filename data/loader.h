// Batches of a data set, made ahead by worker threads. Order and content depend on (seed, epoch, index) alone: any number of
// threads gives the same batches.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "data/dataset.h"
#include "data/sample.h"

namespace tessera {

struct LoaderOptions {
  int64_t batch = 16;
  int threads = 1;       // 0: items are made inside next()
  bool shuffle = false;  // Dataset::order(epoch); otherwise 0, 1, 2, ...
  int prefetch = 2;      // batches made ahead of the one being used; bounds memory
  // One of `world` processes: of every group of `world` consecutive items it takes number `rank`, so that the batches of all
  // together are those of one process with `world` times the batch. fill: the order is filled up from its start, so that all have
  // equally many.
  int rank = 0, world = 1;
  bool fill = true;
};

class Loader {
 public:
  // The data set must outlive the loader. Error(kMemory): the system gives no threads.
  Loader(const Dataset& dataset, const LoaderOptions& options);
  ~Loader();  // waits for the items in work, no longer
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Batches of an epoch; the last one may be smaller.
  int64_t batches() const { return batches_; }
  int64_t rounds() const { return rounds_; }  // batches of the process that has the most
  int64_t items() const { return items_; }

  // Begins an epoch at `first_batch` (to resume in the middle), whatever was left of the one before.
  void start_epoch(int epoch, int64_t first_batch = 0);

  // The next batch of the epoch; false at its end. An exception of the data set is thrown here, when its batch is reached (that of
  // the first item in order, whatever the threads did), or one for want of memory; the epoch ends with it.
  bool next(Batch& batch);

  // Seconds that next() has waited for the workers since the last call of this function.
  double take_wait_seconds();

 private:
  struct Slot {
    std::vector<Sample> samples;
    Tensor images;        // the samples' pixels, where the data set can write them in place
    int64_t missing = 0;  // items still to be made
    std::exception_ptr error;
    int64_t error_position = 0;
    Batch batch;
    bool ready = false;
  };

  int64_t batch_size(int64_t batch) const { return std::min(options_.batch, items_ - batch * options_.batch); }
  void open_slot(int64_t batch);
  void end_epoch();
  void stop();
  void work();
  void make_item(std::unique_lock<std::mutex>& lock);

  const Dataset& dataset_;
  LoaderOptions options_;
  int64_t items_ = 0, batches_ = 0, rounds_ = 0;

  std::mutex mutex_;
  std::condition_variable work_, done_;
  std::vector<int64_t> order_;
  int epoch_ = 0;
  int64_t next_item_ = 0;  // first item nobody has taken
  int64_t opened_ = 0;     // batches below this number have a slot
  int64_t current_ = 0;    // batch that next() returns next
  int64_t active_ = 0;     // items in work
  bool stop_ = false;
  std::vector<Slot> slots_;  // of batch b: b mod size
  std::vector<std::thread> threads_;
  double wait_seconds_ = 0;
};

}  // namespace tessera
