#include "data/image_cache.h"

namespace tessera {

DecodedPtr ImageCache::get(int64_t key, const std::function<DecodedPtr()>& load) {
  if (recent_bytes_ <= 0 && lasting_bytes_ <= 0) return load();
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) break;
    if (found->second.decoded) {
      if (!found->second.lasting) recent_.splice(recent_.begin(), recent_, found->second.place);
      ++statistics_.hits;
      return found->second.decoded;
    }
    loaded_.wait(lock);
  }
  ++statistics_.misses;
  entries_.emplace(key, Entry{});
  lock.unlock();
  DecodedPtr decoded;
  try {
    decoded = load();
  } catch (...) {
    lock.lock();
    entries_.erase(key);
    loaded_.notify_all();
    throw;
  }
  const int64_t bytes = int64_t(decoded->image.pixels.size());
  lock.lock();
  if (lasting_held_ + bytes <= lasting_bytes_) {
    entries_[key] = {decoded, true, {}};
    lasting_held_ += bytes;
    ++lasting_images_;
  } else if (bytes > recent_bytes_) {
    entries_.erase(key);
  } else {
    recent_.push_front(key);
    entries_[key] = {decoded, false, recent_.begin()};
    recent_held_ += bytes;
    while (recent_held_ > recent_bytes_) {
      const auto oldest = entries_.find(recent_.back());
      recent_held_ -= int64_t(oldest->second.decoded->image.pixels.size());
      entries_.erase(oldest);
      recent_.pop_back();
    }
  }
  loaded_.notify_all();
  return decoded;
}

ImageCache::Statistics ImageCache::statistics() const {
  std::lock_guard lock(mutex_);
  Statistics s = statistics_;
  s.bytes = recent_held_ + lasting_held_;
  s.images = int64_t(recent_.size()) + lasting_images_;
  return s;
}

}  // namespace tessera
