#include "data/disk_image_cache.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <span>
#include <utility>

#include "data/cache_entry.h"
#include "tensor/base/check.h"

namespace tessera {

DiskImageCache::DiskImageCache(DiskCacheOptions options, Size within, const std::vector<Wanted>& set)
    : options_(std::move(options)), within_(within) {
  if (options_.folder.empty()) {
    warn(
        "no folder for decoded images: neither XDG_CACHE_HOME nor HOME is set, name one with --cache-dir; they are decoded each "
        "time");
    return;
  }
  std::vector<CacheFolder::Wanted> wanted;
  wanted.reserve(set.size());
  for (const Wanted& p : set) {
    const std::string file = absolute_file(p.file);
    wanted.push_back({entry_name(file, within_), entry_bytes(file, p.size)});
  }
  try {
    folder_ = std::make_unique<CacheFolder>(options_.folder, options_.bytes, std::move(wanted));
    keeps_ = folder_->refusal().empty();
    if (!keeps_) stop_keeping(folder_->refusal());
  } catch (const Error& e) {
    warn(fmt::format("{}: no decoded images are kept there: {}", options_.folder.string(), e.message()));
  }
}

void DiskImageCache::stop_keeping(const std::string& why) {
  keeps_ = false;
  warn(fmt::format("{}: no more decoded images are added there: {}", options_.folder.string(), why));
}

DecodedPtr DiskImageCache::get(const std::string& file, const std::function<DecodedPtr()>& load) {
  const std::optional<ImageKey> key = folder_ ? image_key(file, within_) : std::nullopt;
  if (!key) return load();
  const uint64_t name = entry_name(key->file, within_);
  if (DecodedPtr found = find(*key, name)) {
    ++hits_;
    return found;
  }
  ++misses_;
  DecodedPtr decoded = load();
  keep(*key, name, *decoded);
  return decoded;
}

DecodedPtr DiskImageCache::find(const ImageKey& key, uint64_t name) {
  const Descriptor entry(folder_->open(name));
  if (entry.get() < 0) return nullptr;
  auto decoded = std::make_shared<DecodedImage>();
  const EntryState state = read_entry(entry.get(), key, *decoded);
  if (state == EntryState::kGood) {
    CacheFolder::touch(entry.get());
    return decoded;
  }
  if (state == EntryState::kStale) {
    ++stale_;
  } else if (damaged_++ == 0) {
    warn(fmt::format("{}: the decoded image of {} is damaged; it and others like it are made anew", options_.folder.string(),
                     key.file));
  }
  folder_->remove(name, entry.get());
  return nullptr;
}

void DiskImageCache::keep(const ImageKey& key, uint64_t name, const DecodedImage& decoded) {
  if (!keeps_) return;
  const int64_t now =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  if (std::abs(now - std::max(key.modified_ns, key.changed_ns)) < options_.settled_ns) return;
  if (image_key(key.file, key.within) != key) return;  // it has changed while it was read
  const std::string head = entry_head(key, decoded);
  const std::array pieces = {std::as_bytes(std::span(head)), std::as_bytes(std::span(decoded.image.pixels))};
  try {
    switch (folder_->put(name, pieces)) {
      case CacheFolder::Put::kDone: ++kept_; break;
      case CacheFolder::Put::kNoRoom: keeps_ = false; break;  // as was said at the opening
    }
  } catch (const Error& e) {
    if (keeps_.exchange(false)) stop_keeping(e.message());
  }
}

DiskImageCache::Statistics DiskImageCache::statistics() const { return {hits_, misses_, kept_, stale_, damaged_}; }

}  // namespace tessera
