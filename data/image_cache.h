// Decoded pictures of a data set under a hard limit of bytes, shared by all readers. What it holds changes speed, never results.
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

// A picture after the resize of spec 3.2, with the size that it had in its file.
struct DecodedImage {
  Image image;
  int original_height = 0, original_width = 0;
};
using DecodedPtr = std::shared_ptr<const DecodedImage>;

class ImageCache {
 public:
  // Least recently used pictures leave when the others exceed `max_bytes`; 0 keeps nothing.
  explicit ImageCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // The picture of `key`, from memory or through `load`. When several threads ask for one at a time, one loads and the others wait.
  // An exception of `load` reaches the caller; nothing is kept then.
  DecodedPtr get(int64_t key, const std::function<DecodedPtr()>& load);

  int64_t max_bytes() const { return max_bytes_; }
  struct Statistics {
    int64_t bytes = 0, pictures = 0, hits = 0, misses = 0;
  };
  Statistics statistics() const;

 private:
  struct Entry {
    DecodedPtr picture;  // empty while being loaded
    std::list<int64_t>::iterator place;
  };

  int64_t max_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable loaded_;
  std::unordered_map<int64_t, Entry> entries_;
  std::list<int64_t> recent_;  // most recently used first; loaded entries only
  Statistics statistics_;
};

}  // namespace tessera
