// Decoded images of a data set under a hard limit of bytes, shared by all readers. What it holds changes speed, never results.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "data/image.h"

namespace tessera {

// An image after the resize of spec 3.2, with the size that it had in its file.
struct DecodedImage {
  Image image;
  int original_height = 0, original_width = 0;
};
using DecodedPtr = std::shared_ptr<const DecodedImage>;

class ImageCache {
 public:
  // The first images stay for good, as many as fit into `lasting_bytes`: of a set read again and again the same share is always
  // there, while a cache that always drops the oldest would have dropped each image before its next turn. Of the others the least
  // recently used leave when they exceed `recent_bytes`. 0 and 0 keep nothing.
  explicit ImageCache(int64_t recent_bytes, int64_t lasting_bytes = 0) : recent_bytes_(recent_bytes), lasting_bytes_(lasting_bytes) {}

  // The image of `key`, from memory or through `load`. When several threads ask for one at a time, one loads and the others wait.
  // An exception of `load` reaches the caller; nothing is kept then.
  DecodedPtr get(int64_t key, const std::function<DecodedPtr()>& load);

  struct Statistics {
    int64_t bytes = 0, images = 0, hits = 0, misses = 0;  // bytes and images: held now
  };
  Statistics statistics() const;

 private:
  struct Entry {
    DecodedPtr decoded;  // empty while being loaded
    bool lasting = false;
    std::list<int64_t>::iterator place;  // unless lasting
  };

  int64_t recent_bytes_, lasting_bytes_;
  int64_t recent_held_ = 0, lasting_held_ = 0, lasting_images_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable loaded_;
  std::unordered_map<int64_t, Entry> entries_;
  std::list<int64_t> recent_;  // most recently used first; loaded entries that may leave
  Statistics statistics_;
};

}  // namespace tessera
