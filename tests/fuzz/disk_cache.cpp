// The folder of the disk cache while others do to it what the bytes say: every image that is asked for is the one that would be
// decoded, and what the folder counts stays a number of bytes.
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "data/cache_entry.h"
#include "data/disk_image_cache.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace fs = std::filesystem;

namespace {

constexpr Size kWithin = {24, 24};
constexpr int kImages = 3;

struct ImageSet {
  std::vector<std::string> files;
  std::vector<DecodedPtr> decoded;
  std::vector<DiskImageCache::Wanted> set;
  ImageSet() {
    for (int i = 0; i < kImages; ++i) {
      auto d = std::make_shared<DecodedImage>();
      d->image = Image(24, 16 + i);
      for (size_t k = 0; k < d->image.pixels.size(); ++k) d->image.pixels[k] = uint8_t(k * size_t(i + 3));
      d->original_height = d->image.height, d->original_width = d->image.width;
      files.push_back(fuzz::file_with(fmt::format("{}.ppm", i).c_str(), std::string(size_t(9 + i), 'x')));
      set.push_back({files.back(), {d->image.height, d->image.width}});
      decoded.push_back(std::move(d));
    }
  }
};

// Numbers and text from the bytes; zeros and nothing behind their end.
class Bytes {
 public:
  explicit Bytes(std::string_view rest) : rest_(rest) {}
  bool empty() const { return rest_.empty(); }
  std::string_view text(size_t n) {
    const std::string_view out = rest_.substr(0, n);
    rest_.remove_prefix(out.size());
    return out;
  }
  template <class T>
  T number() {
    T value{};
    const std::string_view bytes = text(sizeof value);
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }

 private:
  std::string_view rest_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ImageSet images;
  const fs::path place = fuzz::folder() / "cache";
  Bytes bytes(fuzz::text_of(data, size));
  std::unique_ptr<DiskImageCache> cache;
  const auto open = [&](std::optional<int64_t> budget) {
    cache.reset();
    DiskCacheOptions options;
    options.folder = place;
    options.bytes = budget;
    options.settled_ns = 0;
    cache = std::make_unique<DiskImageCache>(options, kWithin, images.set);
    if (!cache->usable()) return;
    const CacheFolder::State& s = cache->at_opening();
    for (const int64_t n : {s.budget, s.files, s.bytes, s.wanted_files, s.wanted_bytes, s.missing_bytes, s.removed})
      fuzz::require(n >= 0, "counts are not negative");
    fuzz::require(s.wanted_files <= kImages, "no more images are there than are wanted");
  };
  const auto get = [&](int which) {
    const DecodedPtr& own = images.decoded[size_t(which)];
    const DecodedPtr got = cache->get(images.files[size_t(which)], [&] { return own; });
    fuzz::require(got->image.height == own->image.height && got->image.width == own->image.width &&
                      got->image.pixels == own->image.pixels && got->original_height == own->original_height &&
                      got->original_width == own->original_width,
                  "an image is the one that would be decoded");
  };
  const auto write = [](const fs::path& file, std::string_view content) {
    std::error_code ignored;
    fs::create_directories(file.parent_path(), ignored);
    if (fs::is_fifo(file, ignored)) return;  // it would be waited for until somebody reads
    if (FILE* const f = std::fopen(file.c_str(), "wb")) {
      std::fwrite(content.data(), 1, content.size(), f);
      std::fclose(f);
    }
  };
  open({});
  for (int steps = 0; steps < 40 && !bytes.empty(); ++steps) {
    const auto what = bytes.number<uint8_t>();
    const int which = what / 16 % kImages;
    const uint64_t name = entry_name(images.files[size_t(which)], kWithin);
    const fs::path entry = place / fmt::format("{:02x}/{:014x}.rgb", name >> 56, name & (~uint64_t(0) >> 8));
    std::error_code ignored;
    switch (what % 16) {
      case 0: open(int64_t(bytes.number<uint64_t>() % (uint64_t(1) << 50))); break;  // of --cache-mib
      case 1: open({}); break;
      case 2: write(entry, bytes.text(bytes.number<uint8_t>())); break;
      case 3: write(place / "usage", bytes.text(bytes.number<uint8_t>() % 17)); break;
      case 4: {
        if (!fs::is_regular_file(fs::symlink_status(entry, ignored))) write(entry, "");
        if (::truncate(entry.c_str(), off_t(bytes.number<uint64_t>() >> 1)) != 0) break;  // with holes
        break;
      }
      case 5: {
        const auto at = bytes.number<uint16_t>();
        const auto change = bytes.number<uint8_t>();
        if (fs::is_fifo(entry, ignored)) break;
        if (FILE* const f = std::fopen(entry.c_str(), "r+b")) {
          std::fseek(f, at, SEEK_SET);
          const int old = std::fgetc(f);
          std::fseek(f, at, SEEK_SET);
          if (old != EOF) std::fputc(old ^ change, f);
          std::fclose(f);
        }
        break;
      }
      case 6: fs::remove(entry, ignored), fs::create_directories(entry, ignored); break;
      case 7: fs::remove(entry, ignored), ::mkfifo(entry.c_str(), 0600); break;
      case 8: fs::remove_all(what < 128 ? place / fmt::format("{:02x}", name >> 56) : place, ignored); break;
      case 9: write(place / (what < 128 ? "incoming/1-2" : "0a/0000000000000b.rgb"), bytes.text(bytes.number<uint8_t>())); break;
      default: get(which); break;
    }
  }
  for (int which = 0; which < kImages; ++which) get(which);
  open({});
  for (int which = 0; which < kImages; ++which) get(which);
  cache.reset();
  fs::remove_all(place);
  return 0;
}
