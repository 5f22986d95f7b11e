#include "data/image_cache.h"

namespace tessera {

DecodedPtr ImageCache::get(int64_t key, const std::function<DecodedPtr()>& load) {
  if (max_bytes_ <= 0) return load();
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) break;
    if (found->second.picture) {
      recent_.splice(recent_.begin(), recent_, found->second.place);
      ++statistics_.hits;
      return found->second.picture;
    }
    loaded_.wait(lock);
  }
  ++statistics_.misses;
  entries_.emplace(key, Entry{});
  lock.unlock();
  DecodedPtr picture;
  try {
    picture = load();
  } catch (...) {
    lock.lock();
    entries_.erase(key);
    loaded_.notify_all();
    throw;
  }
  const int64_t bytes = int64_t(picture->image.pixels.size());
  lock.lock();
  if (bytes > max_bytes_) {
    entries_.erase(key);
  } else {
    recent_.push_front(key);
    entries_[key] = {picture, recent_.begin()};
    statistics_.bytes += bytes;
    while (statistics_.bytes > max_bytes_) {
      const auto oldest = entries_.find(recent_.back());
      statistics_.bytes -= int64_t(oldest->second.picture->image.pixels.size());
      entries_.erase(oldest);
      recent_.pop_back();
    }
  }
  statistics_.pictures = int64_t(recent_.size());
  loaded_.notify_all();
  return picture;
}

ImageCache::Statistics ImageCache::statistics() const {
  std::lock_guard lock(mutex_);
  return statistics_;
}

}  // namespace tessera
