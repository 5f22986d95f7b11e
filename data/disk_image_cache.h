// Decoded images in a folder that outlasts the training, under a limit of bytes and shared by all trainings of this user. What it
// holds changes speed, never results: an entry is used only when it was made from the image file as it is now, and its checksum
// holds (data/cache_entry.h). Nothing that goes wrong with the folder is an error: it is said once, and images are decoded as
// without it.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/cache_folder.h"
#include "data/image_cache.h"

namespace tessera {

struct ImageKey;

struct DiskCacheOptions {
  std::filesystem::path folder;
  std::optional<int64_t> bytes;  // at most, of all data sets (default: CacheFolder's)
  // An image that has changed so lately could change again without a sign, for file systems count time in steps of up to two
  // seconds: it is not kept yet.
  int64_t settled_ns = 2'000'000'000;
  std::function<void(const std::string&)> warn;  // from any thread
};

class DiskImageCache {
 public:
  struct Wanted {
    std::string file;
    Size size;  // after the resize
  };
  // `within`: what images are fitted into. `set`: those that will be asked for.
  DiskImageCache(DiskCacheOptions options, Size within, const std::vector<Wanted>& set);

  // The image of `file`, from the folder or through `load`, whose exceptions reach the caller. From any thread.
  DecodedPtr get(const std::string& file, const std::function<DecodedPtr()>& load);

  bool usable() const { return folder_ != nullptr; }
  const CacheFolder::State& at_opening() const { return folder_->at_opening(); }  // when it is usable
  const std::filesystem::path& path() const { return options_.folder; }

  struct Statistics {
    int64_t hits = 0, misses = 0, kept = 0, stale = 0, damaged = 0;  // since the opening
  };
  Statistics statistics() const;

 private:
  DecodedPtr find(const ImageKey& key, uint64_t name);
  void keep(const ImageKey& key, uint64_t name, const DecodedImage& decoded);
  void warn(const std::string& text) const {
    if (options_.warn) options_.warn(text);
  }
  void stop_keeping(const std::string& why);

  const DiskCacheOptions options_;
  const Size within_;
  std::unique_ptr<CacheFolder> folder_;
  std::atomic<bool> keeps_{false};  // adds what is missing
  std::atomic<int64_t> hits_{0}, misses_{0}, kept_{0}, stale_{0}, damaged_{0};
};

}  // namespace tessera
