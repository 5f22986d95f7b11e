#include "data/loader.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "data/batch.h"
#include "tensor/base/start_threads.h"

namespace tessera {

Loader::Loader(const Dataset& dataset, const LoaderOptions& options) : dataset_(dataset), options_(options) {
  TESSERA_CHECK(options.batch >= 1 && options.threads >= 0 && options.prefetch >= 1 && options.world >= 1 && options.rank >= 0 &&
                    options.rank < options.world,
                "Loader: batch {}, threads {}, prefetch {}, rank {} of {}", options.batch, options.threads, options.prefetch,
                options.rank, options.world);
  const int64_t most = (dataset.size() + options.world - 1) / options.world;
  items_ = options.fill ? most : (dataset.size() - options.rank + options.world - 1) / options.world;
  batches_ = (items_ + options.batch - 1) / options.batch;
  rounds_ = (most + options.batch - 1) / options.batch;
  slots_.resize(size_t(options.threads == 0 ? 1 : options.prefetch + 1));
  current_ = batches_;
  next_item_ = items_;
  start_threads(
      threads_, options.threads, [this](int) { work(); }, [this] { stop(); }, "use fewer --workers");
}

Loader::~Loader() {
  stop();
  for (std::thread& t : threads_) t.join();
}

void Loader::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
}

void Loader::end_epoch() {
  current_ = batches_;
  next_item_ = items_;
}

void Loader::start_epoch(int epoch, int64_t first_batch) {
  TESSERA_CHECK(epoch >= 0 && first_batch >= 0 && first_batch <= batches_, "start_epoch: epoch {}, batch {} of {}", epoch,
                first_batch, batches_);
  std::vector<int64_t> all;
  if (options_.shuffle) {
    all = dataset_.order(epoch);
  } else {
    all.resize(size_t(dataset_.size()));
    std::iota(all.begin(), all.end(), int64_t(0));
  }
  std::vector<int64_t> order(static_cast<size_t>(items_));
  for (size_t i = 0; i < order.size(); ++i) order[i] = all[(i * size_t(options_.world) + size_t(options_.rank)) % all.size()];

  std::unique_lock lock(mutex_);
  next_item_ = items_;  // nothing more of the old epoch
  done_.wait(lock, [&] { return active_ == 0; });
  order_ = std::move(order);
  epoch_ = epoch;
  current_ = opened_ = first_batch;
  next_item_ = std::min(first_batch * options_.batch, items_);
  for (Slot& s : slots_) s = Slot{};
  while (opened_ < batches_ && opened_ < current_ + int64_t(slots_.size())) open_slot(opened_);
  lock.unlock();
  work_.notify_all();
}

void Loader::open_slot(int64_t batch) {
  try {
    Slot& slot = slots_[size_t(batch) % slots_.size()];
    slot = Slot{};
    slot.missing = batch_size(batch);
    slot.samples.resize(size_t(slot.missing));
    const Size size = dataset_.pixel_size(order_[size_t(batch * options_.batch)]);
    if (size.height > 0) slot.images = Tensor::empty({slot.missing, size.height, size.width, 3}, DType::kU8);
  } catch (...) {
    end_epoch();  // nobody would make this batch, and next() would wait for it
    throw;
  }
  opened_ = batch + 1;
}

// Takes the next item and makes it; the one who finishes a batch joins it. The lock is held on entry and on return.
void Loader::make_item(std::unique_lock<std::mutex>& lock) {
  const int64_t position = next_item_++;
  const int64_t index = order_[size_t(position)];
  const int epoch = epoch_;
  ++active_;
  Slot& slot = slots_[size_t(position / options_.batch) % slots_.size()];
  const int64_t number = position % options_.batch;  // in the batch
  lock.unlock();
  Sample sample;
  std::exception_ptr error;
  try {
    const Size size = dataset_.pixel_size(index);
    const bool fits = slot.images.defined() && size.height == slot.images.size(1) && size.width == slot.images.size(2);
    sample = fits
                 ? dataset_.get_into(index, epoch, slot.images.data<uint8_t>() + number * slot.images.numel() / slot.images.size(0))
                 : dataset_.get(index, epoch);
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  if (error && (!slot.error || position < slot.error_position)) {
    slot.error = error;
    slot.error_position = position;
  }
  slot.samples[size_t(number)] = std::move(sample);
  if (--slot.missing == 0) {
    if (!slot.error) {
      lock.unlock();
      Batch batch;
      try {
        batch = collate(std::move(slot.samples), std::move(slot.images));
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      slot.batch = std::move(batch);
      slot.error = error;
    }
    slot.samples.clear();
    slot.ready = true;
  }
  --active_;
  const bool idle = active_ == 0 && next_item_ >= items_;  // start_epoch may wait for that
  if (slot.ready || idle) done_.notify_all();
}

void Loader::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return stop_ || (next_item_ < items_ && next_item_ / options_.batch < opened_); });
    if (stop_) return;
    make_item(lock);
  }
}

bool Loader::next(Batch& batch) {
  batch = Batch{};  // its memory is free for the batch to come
  std::unique_lock lock(mutex_);
  if (current_ >= batches_) return false;
  Slot& slot = slots_[size_t(current_) % slots_.size()];
  const auto begin = std::chrono::steady_clock::now();
  if (options_.threads == 0) {
    while (!slot.ready) make_item(lock);
  } else {
    done_.wait(lock, [&] { return slot.ready; });
  }
  wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (slot.error) {
    const std::exception_ptr error = slot.error;
    end_epoch();
    std::rethrow_exception(error);
  }
  batch = std::move(slot.batch);
  ++current_;
  if (opened_ < batches_) open_slot(opened_);
  lock.unlock();
  work_.notify_all();
  return true;
}

double Loader::take_wait_seconds() {
  std::lock_guard lock(mutex_);
  return std::exchange(wait_seconds_, 0.0);
}

}  // namespace tessera
