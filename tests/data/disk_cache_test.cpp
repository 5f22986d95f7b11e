// The disk cache: results never depend on it, whatever it holds and whoever else uses it; its limit; damaged entries; kills.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "data/cache_entry.h"
#include "data/dataset.h"
#include "data/shapes.h"
#include "data/transforms/letterbox.h"
#include "tensor/base/file.h"
#include "tensor/base/memory.h"
#include "tests/data/support.h"
#include "tests/support/damage.h"
#include "tests/support/small_disk.h"

using namespace tessera;
using namespace tessera::test;
using namespace std::string_literals;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kBlock = 4096;
constexpr Size kWithin = {24, 24};

std::string ppm(int height, int width, uint64_t seed) {
  const Image image = noise_image(height, width, seed);
  return fmt::format("P6 {} {} 255\n", width, height) + std::string(image.pixels.begin(), image.pixels.end());
}

DecodedImage decode(const std::string& file) {
  DecodedImage d;
  d.image = read_image(file);
  d.original_height = d.image.height;
  d.original_width = d.image.width;
  const Size s = dataset_size({d.image.height, d.image.width}, kWithin);
  if (s != Size{d.image.height, d.image.width}) d.image = resize_bilinear(d.image, s.height, s.width);
  return d;
}

bool same(const DecodedImage& a, const DecodedImage& b) {
  return a.original_height == b.original_height && a.original_width == b.original_width && a.image.height == b.image.height &&
         a.image.width == b.image.width && a.image.pixels == b.image.pixels;
}

std::set<fs::path> files_in(const fs::path& folder) {
  std::set<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files.insert(entry.path());
  return files;
}

std::vector<fs::path> entries_in(const fs::path& folder) {
  std::vector<fs::path> entries;
  for (const fs::path& file : files_in(folder))
    if (file.extension() == ".rgb") entries.push_back(file);
  return entries;
}

int64_t blocks_of(const fs::path& folder) {
  int64_t bytes = 0;
  for (const fs::path& file : files_in(folder))
    if (file.extension() == ".rgb" || file.parent_path().filename() == "incoming")
      bytes += (int64_t(fs::file_size(file)) + kBlock - 1) / kBlock * kBlock;
  return bytes;
}

// Bytes that are taken, as the folder's own file says.
int64_t counted(const fs::path& folder) {
  int64_t bytes = -1;
  std::ifstream(folder / "usage", std::ios::binary).read(reinterpret_cast<char*>(&bytes), sizeof bytes);
  return bytes;
}

// Some images, and caches over them that remember what they warned of.
struct ImageSet {
  TempFolder folder;
  fs::path place = folder.path() / "cache";
  std::vector<std::string> files;
  std::vector<std::string> warnings;
  std::mutex mutex;

  explicit ImageSet(int count = 6) {
    for (int i = 0; i < count; ++i)
      files.push_back(folder.write(fmt::format("images/{}.ppm", i), ppm(20 + i, 40, uint64_t(i))).string());
  }
  DiskCacheOptions options() {
    DiskCacheOptions o;
    o.folder = place;
    o.settled_ns = 0;  // the images are new
    o.warn = [this](const std::string& text) {
      std::lock_guard lock(mutex);
      warnings.push_back(text);
    };
    return o;
  }
  std::vector<DiskImageCache::Wanted> set() const {
    std::vector<DiskImageCache::Wanted> set;
    for (const std::string& file : files) {
      const Image image = read_image(file);
      set.push_back({file, dataset_size({image.height, image.width}, kWithin)});
    }
    return set;
  }
  // Asks for all, each as it is without a cache; how many came from the folder.
  int64_t read_all(DiskImageCache& cache) const {
    const int64_t before = cache.statistics().hits;
    for (const std::string& file : files) {
      const DecodedImage expected = decode(file);
      CHECK(same(*cache.get(file, [&] { return std::make_shared<DecodedImage>(expected); }), expected));
    }
    return cache.statistics().hits - before;
  }
};

int64_t cost_of(const fs::path& file) { return (int64_t(fs::file_size(file)) + kBlock - 1) / kBlock * kBlock; }

void make_old(const fs::path& file, std::chrono::hours age) { fs::last_write_time(file, fs::file_time_type::clock::now() - age); }

bool equal(const Sample& a, const Sample& b) {
  if (a.targets.size() != b.targets.size()) return false;
  for (size_t i = 0; i < a.targets.size(); ++i)
    if (a.targets[i].class_id != b.targets[i].class_id || a.targets[i].box != b.targets[i].box) return false;
  return a.height == b.height && a.width == b.width && a.pixels == b.pixels && a.masks == b.masks;
}

}  // namespace

TEST_CASE("disk cache: samples are those without it, cold, warm, partly filled, damaged and of changed images") {
  const TempFolder folder;
  ShapesOptions shapes;
  shapes.train = 12;
  shapes.val = 1;
  shapes.size = 96;
  const std::string yaml = make_shapes(folder.path() / "shapes", shapes).string();
  const std::set<fs::path> before = files_in(folder.path() / "shapes");
  DatasetConfig config;
  config.imgsz = 64;
  config.batch = 4;
  config.cache_bytes = 0;  // nothing in memory: every image is asked for
  config.augment.mixup = config.augment.copy_paste = 0.5;
  config.partners = MosaicPartners::kBuffer;
  const auto plain = open_dataset(yaml, "train", config);
  const auto as_plain = [&](std::optional<int64_t> bytes, int64_t& hits) {
    DatasetConfig with = config;
    with.disk_cache.emplace();
    with.disk_cache->folder = folder.path() / "cache";
    with.disk_cache->bytes = bytes;
    with.disk_cache->settled_ns = 0;
    const auto set = open_dataset(yaml, "train", with);
    for (int epoch = 0; epoch < 2; ++epoch)
      for (int64_t i = 0; i < set->size(); ++i)
        if (!equal(set->get(i, epoch), plain->get(i, epoch))) return false;
    hits = set->disk_cache()->statistics().hits;
    CHECK(set->cache_statistics().bytes == 0);
    return true;
  };
  int64_t cold = 0, warm = 0, damaged = 0, partly = 0, again = 0;
  CHECK(as_plain({}, cold));
  CHECK(entries_in(folder.path() / "cache").size() == 12);
  CHECK(as_plain({}, warm));
  CHECK(warm == cold + 12);
  int which = 0;
  for (const fs::path& entry : entries_in(folder.path() / "cache")) {
    const int64_t bytes = int64_t(fs::file_size(entry));
    switch (which++ % 4) {
      case 0: fs::resize_file(entry, uintmax_t(bytes / 2)); break;
      case 1: fs::remove(entry); break;
      case 2: {
        std::fstream file(entry, std::ios::in | std::ios::out | std::ios::binary);
        file.seekg(bytes - 7);
        const char value = char(file.get() ^ 1);
        file.seekp(bytes - 7);
        file.put(value);
        break;
      }
      default: break;
    }
  }
  CHECK(as_plain({}, damaged));
  CHECK(damaged == warm - 9);
  CHECK(as_plain(5 * 3 * kBlock, partly));  // an entry takes three or four blocks
  CHECK(partly > 0);
  CHECK(partly < cold);
  CHECK(blocks_of(folder.path() / "cache") <= 5 * 3 * kBlock);
  CHECK(as_plain({}, again));
  CHECK(files_in(folder.path() / "shapes") == before);  // nothing beside the images
}

TEST_CASE("disk cache: an image that changes is decoded anew, whatever its size and its time say") {
  ImageSet p;
  const auto set = p.set();
  {
    DiskImageCache cache(p.options(), kWithin, set);
    CHECK(p.read_all(cache) == 0);
    CHECK(cache.statistics().kept == 6);
  }
  DiskImageCache cache(p.options(), kWithin, set);
  CHECK(cache.at_opening().wanted_files == 6);
  CHECK(cache.at_opening().missing_bytes == 0);
  CHECK(p.read_all(cache) == 6);
  const auto time = fs::last_write_time(p.files[2]);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));  // the clock of a file system may stand still for so long
  p.folder.write("images/2.ppm", ppm(22, 40, 99));             // as long as before
  fs::last_write_time(p.files[2], time);
  p.folder.write("images/3.ppm", ppm(21, 33, 98));
  CHECK(p.read_all(cache) == 4);
  CHECK(cache.statistics().stale == 2);
  CHECK(p.read_all(cache) == 6);
  fs::remove(p.files[4]);
  CHECK_THROWS_AS(cache.get(p.files[4], [&] { return std::make_shared<DecodedImage>(decode(p.files[4])); }), Error);
  CHECK(p.warnings.empty());

  // The same images for another size are other entries.
  p.files.erase(p.files.begin() + 4);
  DiskImageCache other(p.options(), {48, 48}, p.set());
  CHECK(other.at_opening().wanted_files == 0);
}

TEST_CASE("disk cache: an image that has just changed, or changes while it is read, is not kept") {
  ImageSet p;
  DiskCacheOptions options = p.options();
  options.settled_ns = int64_t(3600) * 1'000'000'000;
  DiskImageCache careful(options, kWithin, p.set());
  CHECK(p.read_all(careful) == 0);
  CHECK(careful.statistics().kept == 0);

  DiskImageCache cache(p.options(), kWithin, p.set());
  cache.get(p.files[0], [&] {
    auto read = std::make_shared<DecodedImage>(decode(p.files[0]));
    p.folder.write("images/0.ppm", ppm(9, 9, 5));
    return read;
  });
  CHECK(cache.statistics().kept == 0);
  CHECK(p.read_all(cache) == 0);
  CHECK(cache.statistics().kept == 6);
}

TEST_CASE("disk cache: the limit holds, and what was not used for the longest time leaves for what is wanted") {
  ImageSet first, second(8);
  second.place = first.place;
  const std::string mine = first.folder.write("cache/ab/mine.rgb", "mine").string();
  const std::string note = first.folder.write("cache/00/0123456789abcd.txt", "mine").string();
  {
    DiskImageCache cache(first.options(), kWithin, first.set());
    first.read_all(cache);
  }
  const auto are_there = [&](ImageSet& p) { return DiskImageCache(p.options(), kWithin, p.set()).at_opening().wanted_files; };
  CHECK(are_there(first) == 6);
  std::vector<fs::path> entries = entries_in(first.place);
  std::erase(entries, fs::path(mine));
  REQUIRE(entries.size() == 6);
  const int64_t one = cost_of(entries[0]);
  for (size_t i = 0; i < 6; ++i) {
    REQUIRE(cost_of(entries[i]) == one);
    make_old(entries[i], std::chrono::hours(3 + (i * 5) % 6));  // 0, 5, 4, 3, 2, 1: the second is the oldest
  }
  DiskCacheOptions limited = second.options();
  limited.bytes = 12 * one;  // eight are wanted: two of six leave
  {
    DiskImageCache cache(limited, kWithin, second.set());
    CHECK(cache.at_opening().removed == 2);
    CHECK(!fs::exists(entries[1]));
    CHECK(!fs::exists(entries[2]));
    CHECK(are_there(first) == 4);  // beside it: nothing of the other set is removed
    CHECK(second.read_all(cache) == 0);
    CHECK(cache.statistics().kept == 8);
    CHECK(second.read_all(cache) == 8);
  }
  CHECK(counted(first.place) == 12 * one);
  CHECK(blocks_of(first.place) == 12 * one + kBlock);  // and the file that is not ours
  {
    DiskCacheOptions small = first.options();
    small.bytes = 5 * one;  // the other set leaves, and one image more does not fit
    DiskImageCache cache(small, kWithin, first.set());
    CHECK(cache.at_opening().removed == 8);
    CHECK(first.read_all(cache) == 4);
    CHECK(first.read_all(cache) == 5);
    CHECK(cache.statistics().kept == 1);
    small.bytes = 3 * one;
    DiskImageCache beside(small, kWithin, first.set());
    CHECK(beside.at_opening().removed == 0);
  }
  DiskCacheOptions least = first.options();
  least.bytes = 3 * one;
  DiskImageCache cache(least, kWithin, first.set());  // alone: its own images leave too
  CHECK(cache.at_opening().removed == 2);
  CHECK(first.read_all(cache) == 3);
  CHECK(counted(first.place) == 3 * one);
  CHECK(fs::exists(mine));
  CHECK(fs::exists(note));
  CHECK((first.warnings.empty() && second.warnings.empty()));
}

TEST_CASE("disk cache: beside another training only what nobody has used for a day leaves; a use is noted") {
  ImageSet first, second;
  second.place = first.place;
  {
    DiskImageCache cache(first.options(), kWithin, first.set());
    first.read_all(cache);
  }
  const std::vector<fs::path> entries = entries_in(first.place);
  for (const fs::path& e : entries) make_old(e, std::chrono::hours(40));
  DiskImageCache running(first.options(), kWithin, first.set());
  running.get(first.files[0], [&] { return std::make_shared<DecodedImage>(decode(first.files[0])); });
  REQUIRE(running.statistics().hits == 1);
  DiskCacheOptions limited = second.options();
  limited.bytes = 6 * cost_of(entries[0]);
  DiskImageCache cache(limited, kWithin, second.set());
  CHECK(cache.at_opening().removed == 5);
  CHECK(second.read_all(cache) == 0);
  CHECK(cache.statistics().kept == 5);
  CHECK(first.read_all(running) == 1);
}

TEST_CASE("disk cache: the default limit is half of what is free or taken") {
  ImageSet p;
  const DiskImageCache cache(p.options(), kWithin, p.set());
  const double half = double(fs::space(p.place).available) / 2;
  CHECK(double(cache.at_opening().budget) > half * 0.8);
  CHECK(double(cache.at_opening().budget) < half * 1.2);
}

TEST_CASE("disk cache: threads and processes at once, killed at any moment, leave whole entries within the limit") {
  ImageSet p(40);
  const auto set = p.set();
  DiskCacheOptions options = p.options();
  options.bytes = 30 * 2 * kBlock;
  constexpr int kRounds = 30;
  Rng rng(1, RngPurpose::kTest);
  fs::create_directory(p.place);  // a process may be killed before it does so
  for (int round = 0; round < kRounds; ++round) {
    std::vector<pid_t> children;
    for (int k = 0; k < 2; ++k) {
      const pid_t child = ::fork();
      if (child == 0) {
        try {
          DiskImageCache cache(options, kWithin, set);
          for (int64_t i = 0;; ++i) {
            const std::string& file = p.files[size_t(i * 7 + k) % p.files.size()];
            const auto fresh = std::make_shared<DecodedImage>(decode(file));
            if (!same(*cache.get(file, [&] { return fresh; }), *fresh)) ::_exit(1);
            std::error_code taken;  // the other process adds to that folder meanwhile
            if (i % 40 == 39) fs::remove_all(p.place / fmt::format("{:02x}", (i * 37) % 256), taken);  // somebody tidies up
          }
        } catch (const std::exception& e) {  // it must not leave the case, and remove its images
          fmt::print(stderr, "{}\n", e.what());
          ::_exit(2);
        }
      }
      children.push_back(child);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(rng.below(30'000)));
    for (const pid_t child : children) {
      int status = 0;
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      CHECK(WIFSIGNALED(status));
    }
    CHECK(blocks_of(p.place) <= *options.bytes);
    if (round % 5 != 4) continue;  // some rounds follow one another as the kills have left it
    DiskImageCache cache(options, kWithin, set);
    CHECK(fs::is_empty(p.place / "incoming"));
    CHECK(counted(p.place) == blocks_of(p.place));
    std::vector<std::thread> threads;
    for (int k = 0; k < 3; ++k) {
      threads.emplace_back([&, k] {
        for (size_t i = 0; i < 80; ++i) {
          const std::string& file = p.files[(i * 3 + size_t(k)) % p.files.size()];
          const auto fresh = std::make_shared<DecodedImage>(decode(file));
          if (!same(*cache.get(file, [&] { return fresh; }), *fresh)) std::abort();
        }
      });
    }
    for (std::thread& t : threads) t.join();
    CHECK(cache.statistics().damaged == 0);
    CHECK(counted(p.place) == blocks_of(p.place));
    CHECK(blocks_of(p.place) <= *options.bytes);
    CHECK(entries_in(p.place).size() >= 20);
  }
  CHECK(p.warnings.empty());
}

TEST_CASE("disk cache: an image that two add at once counts once, and one that is being written counts in full") {
  ImageSet p;
  {
    DiskImageCache one(p.options(), kWithin, p.set()), two(p.options(), kWithin, p.set());
    one.get(p.files[0], [&] {
      p.read_all(two);  // this image too
      return std::make_shared<DecodedImage>(decode(p.files[0]));
    });
    CHECK(counted(p.place) == blocks_of(p.place));
    CHECK(fs::is_empty(p.place / "incoming"));
    CHECK(p.read_all(one) == 6);
  }
  constexpr int64_t kMany = int64_t(64) << 20;
  const std::vector<std::byte> bytes(size_t(kMany), std::byte(1));
  CacheFolder folder(p.place, int64_t(1) << 30, {});
  const int64_t before = folder.at_opening().bytes;
  std::thread writer([&] {
    const std::span<const std::byte> piece(bytes);
    folder.put(1, std::span(&piece, 1));
  });
  while (fs::is_empty(p.place / "incoming") && !fs::exists(p.place / "00")) std::this_thread::yield();
  const CacheFolder meanwhile(p.place, int64_t(1) << 30, {});
  writer.join();
  CHECK(meanwhile.at_opening().bytes >= before + kMany);
}

TEST_CASE("disk cache: a process that was stopped with the lock costs others nothing but what they would have kept") {
  ImageSet p;
  DiskImageCache cache(p.options(), kWithin, p.set());
  const Descriptor other(::open((p.place / "usage").c_str(), O_RDWR));
  REQUIRE(::flock(other.get(), LOCK_EX) == 0);
  CHECK(p.read_all(cache) == 0);
  CHECK(entries_in(p.place).empty());
  REQUIRE(::flock(other.get(), LOCK_UN) == 0);
  CHECK(p.read_all(cache) == 0);
  CHECK(p.read_all(cache) == 6);
}

TEST_CASE("disk cache: a folder that cannot be used is one warning") {
  ImageSet p;
  SUBCASE("a file is in its place") {
    p.place = p.folder.write("cache", "mine");
    DiskImageCache cache(p.options(), kWithin, p.set());
    CHECK(!cache.usable());
    CHECK(p.read_all(cache) == 0);
    CHECK(read_file(p.place) == "mine");
  }
  SUBCASE("no name") {
    p.place.clear();
    DiskImageCache cache(p.options(), kWithin, p.set());
    CHECK(!cache.usable());
    CHECK(p.read_all(cache) == 0);
  }
  SUBCASE("it is removed meanwhile") {
    DiskImageCache cache(p.options(), kWithin, p.set());
    p.read_all(cache);
    fs::remove_all(p.place);
    CHECK(p.read_all(cache) == 0);
    CHECK(p.read_all(cache) == 0);
  }
  REQUIRE(p.warnings.size() == 1);
  CHECK(p.warnings[0].find("decoded images") != std::string::npos);
}

TEST_CASE("disk cache: a folder that is full, and then read only, is one warning") {
  ImageSet q(80);
  q.place = q.folder.path() / "disk";
  fs::create_directory(q.place);
  testing::on_small_disk(q.place, "200k", [&] {
    DiskCacheOptions options = q.options();
    options.bytes = int64_t(1) << 30;
    int64_t kept = 0;
    {
      DiskImageCache cache(options, kWithin, q.set());
      q.read_all(cache);
      kept = cache.statistics().kept;
      if (kept == 0 || kept == 80 || q.read_all(cache) != kept || q.warnings.size() != 1) return 1;
      const fs::space_info space = fs::space(q.place);
      if (space.available < space.capacity / 20) return 5;  // something is left for others
      if (!fs::is_empty(q.place / "incoming") || counted(q.place) != blocks_of(q.place)) return 2;
    }
    if (::mount(nullptr, q.place.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) return 3;
    DiskImageCache cache(options, kWithin, q.set());
    return q.read_all(cache) == kept && cache.statistics().kept == 0 && q.warnings.size() == 2 ? 0 : 4;
  });
}

TEST_CASE("disk cache: a write that finds the disk full is one warning, and leaves nothing of its entry") {
  ImageSet p;
  testing::in_own_process("a filter of system calls", [&] {
    DiskImageCache cache(p.options(), kWithin, p.set());
    const auto get = [&](const std::string& file) {
      const DecodedImage expected = decode(file);
      return same(*cache.get(file, [&] { return std::make_shared<DecodedImage>(expected); }), expected);
    };
    if (!get(p.files[0]) || cache.statistics().kept != 1) return 1;
    if (!testing::fill_disk_for_good()) return testing::kNotPermitted;
    for (const std::string& file : p.files) {
      if (!get(file)) return 2;
    }
    if (cache.statistics().kept != 1 || cache.statistics().hits != 1) return 3;
    if (p.warnings.size() != 1 || p.warnings[0].find(std::generic_category().message(ENOSPC)) == std::string::npos) return 4;
    if (!fs::is_empty(p.place / "incoming") || entries_in(p.place).size() != 1) return 5;
    return counted(p.place) == blocks_of(p.place) ? 0 : 6;  // what was to be written is not counted as taken
  });
}

TEST_CASE("disk cache: a count or a length that nobody has written is no reason to add more, or to overflow") {
  ImageSet p;
  DiskImageCache cache(p.options(), kWithin, p.set());
  const int64_t most = std::numeric_limits<int64_t>::max();
  std::ofstream(p.place / "usage", std::ios::binary).write(reinterpret_cast<const char*>(&most), sizeof most);
  CHECK(p.read_all(cache) == 0);
  CHECK(cache.statistics().kept == 0);

  ImageSet q;
  q.place = q.folder.path() / "disk";
  fs::create_directory(q.place);
  testing::on_small_disk(q.place, "2m", [&] {  // on which files may be as long as numbers go
    {
      DiskImageCache first(q.options(), kWithin, q.set());
      q.read_all(first);
    }
    for (const fs::path& entry : entries_in(q.place)) fs::resize_file(entry, uintmax_t(most));
    DiskImageCache again(q.options(), kWithin, q.set());
    const CacheFolder::State& s = again.at_opening();
    if (s.bytes < 0 || s.wanted_bytes < 0 || s.budget < 0) return 1;
    q.read_all(again);
    return q.read_all(again) == 6 ? 0 : 2;
  });
}

TEST_CASE("disk cache: reading does not grow memory with the set") {
  const TempFolder folder;
  constexpr int kCount = 48, kSide = 640;
  std::vector<std::string> files;
  std::vector<DiskImageCache::Wanted> set;
  for (int i = 0; i < kCount; ++i) {
    files.push_back(folder.write(fmt::format("{}.ppm", i), ppm(kSide, kSide, uint64_t(i))).string());
    set.push_back({files.back(), {kSide, kSide}});
  }
  DiskCacheOptions options;
  options.folder = folder.path() / "cache";
  options.settled_ns = 0;
  DiskImageCache cache(options, {kSide, kSide}, set);
  const auto read_all = [&] {
    for (const std::string& file : files) {
      cache.get(file, [&] {
        auto d = std::make_shared<DecodedImage>();
        d->image = read_image(file);
        d->original_height = d->original_width = kSide;
        return d;
      });
    }
  };
  read_all();
  [[maybe_unused]] const int64_t before = resident_bytes();
  read_all();
  read_all();
  CHECK(cache.statistics().hits == 2 * kCount);
#if !defined(__SANITIZE_ADDRESS__)  // which keeps freed memory
  CHECK(resident_bytes() - before < int64_t(kCount) * kSide * kSide * 3 / 4);
#endif
}

TEST_CASE("damage: an entry of the disk cache is the image, or is refused") {
  const TempFolder folder;
  const std::string file = folder.write("a.ppm", ppm(5, 7, 3)).string();
  const ImageKey key = image_key(file, kWithin).value();
  const DecodedImage decoded = decode(file);
  const std::string good = entry_head(key, decoded) + std::string(decoded.image.pixels.begin(), decoded.image.pixels.end());
  CHECK(int64_t(good.size()) == entry_bytes(key.file, {decoded.image.height, decoded.image.width}));
  int64_t taken = 0, refused = 0;
  const fs::path path = folder.path() / "entry";
  const auto check = [&](const std::string& bytes) {
    folder.write("entry", bytes);
    const Descriptor entry(::open(path.c_str(), O_RDONLY));
    DecodedImage read;
    const EntryState state = read_entry(entry.get(), key, read);
    CHECK((state == EntryState::kGood) == (bytes == good));
    if (state == EntryState::kGood) CHECK(same(read, decoded));
    ++(state == EntryState::kGood ? taken : refused);
  };
  check(good);
  for (size_t length = 0; length < good.size(); ++length) check(good.substr(0, length));
  check(good + '\0');
  for (size_t bit = 0; bit < 8 * good.size(); bit += bit < 8 * 200 ? 1 : 13) {
    std::string flipped = good;
    flipped[bit / 8] = char(flipped[bit / 8] ^ 1 << bit % 8);
    check(flipped);
  }
  for (size_t begin = 0; begin < good.size(); begin += 16) {  // pages that a power cut has left empty
    std::string holes = good;
    std::fill(holes.begin() + std::ptrdiff_t(begin), holes.end(), '\0');
    check(holes);
  }
  testing::Damage damage(7, {"TSRPIC\r\n", "\xFF\xFF\xFF\x7F", "\x00\x00\x00\x80"s, "\1\0\0\0"s, file});
  for (int round = 0; round < 3000; ++round) check(damage(good));
  CHECK(taken > 0);
  CHECK(refused > 4000);
  const Descriptor device(::open("/dev/zero", O_RDONLY)), none(::open(folder.path().c_str(), O_RDONLY));
  DecodedImage read;
  CHECK(read_entry(device.get(), key, read) == EntryState::kDamaged);
  CHECK(read_entry(none.get(), key, read) == EntryState::kDamaged);

  // Good, but not for this key.
  folder.write("entry", good);
  const Descriptor entry(::open(path.c_str(), O_RDONLY));
  for (int which = 0; which < 5; ++which) {
    ImageKey other = key;
    if (which == 0) ++other.bytes;
    if (which == 1) ++other.modified_ns;
    if (which == 2) ++other.changed_ns;
    if (which == 3) ++other.within.width;
    if (which == 4) other.file.back() = 'x';
    CHECK(read_entry(entry.get(), other, read) == EntryState::kStale);
  }
  CHECK(read_entry(entry.get(), key, read) == EntryState::kGood);
}
