// The data set and the loader: equal results for any cache, any number of threads and any place to resume; the drawn default set.
#include "data/dataset.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>
#include <set>
#include <thread>

#include "data/batch.h"
#include "data/dataset_yaml.h"
#include "data/image_order.h"
#include "data/loader.h"
#include "data/loader_bench.h"
#include "data/pixel_pool.h"
#include "data/shapes.h"
#include "tests/data/support.h"
#include "tests/support/few_threads.h"

using namespace tessera;
using namespace tessera::test;
namespace fs = std::filesystem;

namespace {

// One small drawn set for all tests of this file.
const std::string& shapes_yaml() {
  static const TempFolder folder;
  static const std::string yaml = [] {
    ShapesOptions options;
    options.train = 20;
    options.val = 7;
    options.size = 64;
    return make_shapes(folder.path() / "shapes", options).string();
  }();
  return yaml;
}

std::unique_ptr<SegDataset> shapes_set(DatasetConfig config, std::string_view split = "train") {
  if (config.imgsz == 640) config.imgsz = 64;
  config.batch = 4;
  return open_dataset(shapes_yaml(), split, config);
}

AugmentConfig everything() {
  AugmentConfig a;
  a.copy_paste = 0.5;
  a.degrees = 20;
  a.shear = 5;
  a.mixup = 0.5;
  a.flipud = 0.5;
  a.bgr = 0.3;
  return a;
}

bool same(const Sample& a, const Sample& b) {
  if (a.targets.size() != b.targets.size()) return false;
  for (size_t i = 0; i < a.targets.size(); ++i)
    if (a.targets[i].class_id != b.targets[i].class_id || a.targets[i].box != b.targets[i].box) return false;
  return a.index == b.index && a.height == b.height && a.width == b.width && a.pixels == b.pixels && a.masks == b.masks;
}

void mix(uint64_t& hash, const void* data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
}

uint64_t digest(const Batch& b) {
  uint64_t h = 0xcbf29ce484222325u;
  mix(h, b.images.raw(), size_t(b.images.numel()));
  mix(h, b.masks.raw(), size_t(b.masks.numel()) * 4);
  for (const Target& t : b.targets) mix(h, &t.class_id, 4), mix(h, t.box.data(), 16);
  mix(h, b.target_image.data(), b.target_image.size() * 4);
  mix(h, b.indices.data(), b.indices.size() * 8);
  return h;
}

std::vector<uint64_t> digests(Loader& loader, int epoch, int64_t first = 0) {
  loader.start_epoch(epoch, first);
  std::vector<uint64_t> out;
  Batch batch;
  while (loader.next(batch)) out.push_back(digest(batch));
  return out;
}

LoaderOptions loader_options(int threads, bool shuffle = true) {
  LoaderOptions o;
  o.batch = 4;
  o.threads = threads;
  o.shuffle = shuffle;
  return o;
}

// Fails on the items named.
class FaultySet : public Dataset {
 public:
  std::set<int64_t> bad;
  int64_t too_large = -1;  // an item whose batch no memory holds
  Size pixel_size(int64_t index) const override { return index == too_large ? Size{1 << 30, 1 << 30} : Size{}; }
  int64_t size() const override { return 40; }
  Sample get(int64_t index, int) const override {
    if (bad.contains(index)) {
      if (index == *bad.begin()) std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the others' errors come first
      throw Error(ErrorCode::kData, fmt::format("item {}", index));
    }
    Sample s;
    s.index = index;
    s.height = s.width = 2;
    s.pixels.assign(12, uint8_t(index));
    s.mask_height = s.mask_width = 1;
    s.masks.assign(1, 0);
    return s;
  }
};

}  // namespace

TEST_CASE("shapes: a function of the seed, complete labels, made once") {
  const TempFolder folder;
  ShapesOptions options;
  options.train = 6;
  options.val = 2;
  options.size = 48;
  const fs::path yaml = make_shapes(folder.path() / "s", options);
  const fs::file_time_type made = fs::last_write_time(yaml);
  CHECK(make_shapes(folder.path() / "s", options) == yaml);
  CHECK(fs::last_write_time(yaml) == made);
  CHECK(draw_shapes(options, 3).image.pixels == draw_shapes(options, 3).image.pixels);
  CHECK(draw_shapes(options, 3).image.pixels != draw_shapes(options, 4).image.pixels);
  options.seed = 1;
  CHECK(make_shapes(folder.path() / "s", options) == yaml);  // another set takes its place
  CHECK(scan_labels(list_images(load_dataset_yaml(yaml.string()), "train"), 5, {LabelPolicy::kStrict, false, true}).images.size() ==
        6);
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);  // nothing is left beside it
  folder.write("t/file.txt", "mine");
  CHECK_THROWS_AS(make_shapes(folder.path() / "t", options), Error);
  options.size = 8;
  CHECK_THROWS_AS(make_shapes(folder.path() / "u", options), Error);
}

TEST_CASE("training items: a function of (seed, epoch, index), in range, with matching masks") {
  DatasetConfig config;
  config.augment = everything();
  const auto set = shapes_set(config);
  REQUIRE(set->size() == 20);
  int64_t objects = 0;
  for (int64_t i = 0; i < set->size(); ++i) {
    const Sample a = set->get(i, 1);
    CHECK(same(a, set->get(i, 1)));
    CHECK_FALSE(same(a, set->get(i, 2)));
    CHECK(a.height == 64);
    CHECK(a.mask_height == 16);
    objects += int64_t(a.targets.size());
    for (const int32_t v : a.masks) REQUIRE((v >= 0 && v <= int32_t(a.targets.size())));
    for (const Target& t : a.targets) {
      CHECK((t.class_id >= 0 && t.class_id < 5));
      CHECK((t.box[0] - t.box[2] / 2 >= -1e-5f && t.box[0] + t.box[2] / 2 <= 1 + 1e-5f));
      CHECK((t.box[1] - t.box[3] / 2 >= -1e-5f && t.box[1] + t.box[3] / 2 <= 1 + 1e-5f));
    }
  }
  CHECK(objects > 20);
}

TEST_CASE("the boxes of unoccluded objects enclose their masks") {
  DatasetConfig config;
  config.mask_ratio = 1;
  config.overlap_mask = false;
  config.augment.degrees = 30;
  const auto set = shapes_set(config);
  for (int64_t i = 0; i < set->size(); ++i) {
    const Sample s = set->get(i, 0);
    for (size_t j = 0; j < s.targets.size(); ++j) {
      const std::array<float, 4> b = s.targets[j].box;
      for (int y = 0; y < 64; ++y)
        for (int x = 0; x < 64; ++x) {
          if (s.masks[(j * 64 + size_t(y)) * 64 + size_t(x)] == 0) continue;
          REQUIRE((x + 1.01f >= (b[0] - b[2] / 2) * 64 && x - 0.01f <= (b[0] + b[2] / 2) * 64));
          REQUIRE((y + 1.01f >= (b[1] - b[3] / 2) * 64 && y - 0.01f <= (b[1] + b[3] / 2) * 64));
        }
    }
  }
}

TEST_CASE("the cache changes no result") {
  for (const MosaicPartners partners : {MosaicPartners::kUniform, MosaicPartners::kBuffer}) {
    DatasetConfig config;
    config.augment = everything();
    config.partners = partners;
    const auto cached = shapes_set(config);
    config.cache_bytes = 0;
    const auto uncached = shapes_set(config);
    config.cache_bytes = 40000;  // three images
    const auto small = shapes_set(config);
    config.cache_lasting = true;
    const auto lasting = shapes_set(config);
    for (int epoch = 0; epoch < 2; ++epoch)
      for (int64_t i = 0; i < cached->size(); ++i) {
        const Sample s = cached->get(i, epoch);
        REQUIRE(same(s, uncached->get(i, epoch)));
        REQUIRE(same(s, small->get(i, epoch)));
        REQUIRE(same(s, lasting->get(i, epoch)));
      }
    CHECK(cached->cache_statistics().misses == 20);
    CHECK(small->cache_statistics().bytes <= 40000);
    CHECK(lasting->cache_statistics().bytes <= 40000);
    CHECK(lasting->cache_statistics().images > 0);
    CHECK(uncached->cache_statistics().bytes == 0);
  }
}

TEST_CASE("image cache: the first images last, the others leave by age, and the budget holds") {
  const auto image = [] {
    auto p = std::make_shared<DecodedImage>();
    p->image = Image(10, 10);  // 300 bytes
    return DecodedPtr(p);
  };
  ImageCache cache(600, 900);  // two recent, three lasting
  const auto hit = [&](int64_t key) {
    const int64_t before = cache.statistics().hits;
    cache.get(key, image);
    return cache.statistics().hits > before;
  };
  for (int64_t key = 0; key < 10; ++key) CHECK_FALSE(hit(key));
  CHECK(cache.statistics().bytes == 1500);
  CHECK(cache.statistics().images == 5);
  for (const int64_t key : {0, 1, 2, 8, 9}) CHECK(hit(key));
  CHECK_FALSE(hit(5));  // takes the place of 8
  CHECK(hit(9));
  CHECK_FALSE(hit(8));
  CHECK(hit(0));
  CHECK(cache.statistics().bytes == 1500);
}

TEST_CASE("many epochs keep no more memory than one") {
  DatasetConfig config;
  config.imgsz = 160;  // samples of 76,800 bytes go through the pool
  config.cache_bytes = 400000;
  config.cache_lasting = true;
  const auto set = shapes_set(config);
  Loader loader(*set, loader_options(2));
  digests(loader, 0);
  digests(loader, 1);
  const pixel_pool::Statistics before = pixel_pool::statistics();
  for (int epoch = 2; epoch < 30; ++epoch) digests(loader, epoch);
  const pixel_pool::Statistics after = pixel_pool::statistics();
  CHECK(set->cache_statistics().bytes <= 400000);
  CHECK(after.kept_bytes <= pixel_pool::kMaxKept);
  MESSAGE("fresh blocks in 28 epochs: " << after.fresh - before.fresh << ", used again: " << after.reused - before.reused);
#if !defined(__SANITIZE_ADDRESS__)
  CHECK(after.fresh - before.fresh < 20);  // of 560 samples
#endif
}

TEST_CASE("partners follow the size of the set and of the cache") {
  DatasetConfig config;
  CHECK(shapes_set(config)->partners() == MosaicPartners::kUniform);
  config.cache_bytes = 1000;
  CHECK(shapes_set(config)->partners() == MosaicPartners::kBuffer);
}

TEST_CASE("flips and the exchange of red and blue: the same pixels in other places") {
  DatasetConfig config;
  AugmentConfig& c = config.augment;
  c.mosaic = c.translate = c.scale = c.fliplr = 0;
  const Sample plain = shapes_set(config)->get(3, 0);
  const int h = plain.height, w = plain.width;
  for (int flips = 1; flips < 8; ++flips) {
    CAPTURE(flips);
    const bool mirror = flips & 1, over = flips & 2, swap = flips & 4;
    c.fliplr = mirror, c.flipud = over, c.bgr = swap;
    const Sample turned = shapes_set(config)->get(3, 0);
    int64_t different = 0;
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x)
        for (int k = 0; k < 3; ++k) {
          const int from_y = over ? h - 1 - y : y, from_x = mirror ? w - 1 - x : x, from_k = swap ? 2 - k : k;
          different += turned.pixels[size_t((y * w + x) * 3 + k)] != plain.pixels[size_t((from_y * w + from_x) * 3 + from_k)];
        }
    CHECK(different == 0);
  }
}

TEST_CASE("without a change of colours they stay to the bit, as the original leaves them") {
  DatasetConfig config;
  AugmentConfig& c = config.augment;
  c.mosaic = c.translate = c.scale = c.fliplr = c.hsv_h = c.hsv_s = c.hsv_v = 0;
  const auto set = shapes_set(config);
  c.hsv_v = 1e-9;  // next to nothing, but by way of HSV
  const auto changed = shapes_set(config);
  c.hsv_v = 0, c.fliplr = 1;
  const auto mirrored = shapes_set(config);
  config.train = false;
  const auto plain = shapes_set(config);
  int64_t rounded = 0;
  for (int64_t i = 0; i < set->size(); ++i) {
    const Sample sample = set->get(i, 0), expected = plain->get(i, 0), turned = mirrored->get(i, 0);
    REQUIRE(sample.pixels.size() == size_t(sample.height) * size_t(sample.width) * 3);
    CHECK(sample.pixels == expected.pixels);
    int64_t different = 0;
    for (int y = 0; y < sample.height; ++y)
      for (int x = 0; x < sample.width; ++x)
        for (int k = 0; k < 3; ++k)
          different += turned.pixels[size_t((y * sample.width + x) * 3 + k)] !=
                       expected.pixels[size_t((y * sample.width + sample.width - 1 - x) * 3 + k)];
    CHECK(different == 0);
    rounded += changed->get(i, 0).pixels != expected.pixels;
  }
  CHECK(rounded > 0);
}

TEST_CASE("cutmix and copy-paste from another image: objects come in, and only those rectangles and outlines change") {
  DatasetConfig config;
  AugmentConfig& a = config.augment;
  a.mosaic = a.translate = a.scale = a.hsv_h = a.hsv_s = a.hsv_v = a.fliplr = 0;
  SUBCASE("cutmix") { a.cutmix = 1; }
  SUBCASE("copy-paste") {
    a.copy_paste = 1;
    a.copy_paste_mode = CopyPasteMode::kMixup;
  }
  const auto set = shapes_set(config);
  config.augment.cutmix = config.augment.copy_paste = 0;
  const auto alone = shapes_set(config);
  int64_t joined = 0;
  for (int64_t i = 0; i < set->size() && i < 20; ++i) {
    const Sample one = alone->get(i, 0), more = set->get(i, 0);
    CHECK(more.targets.size() >= one.targets.size());
    CHECK(same(more, set->get(i, 0)));
    const int64_t differing = std::inner_product(one.pixels.begin(), one.pixels.end(), more.pixels.begin(), int64_t(0),
                                                 std::plus<>(), [](uint8_t p, uint8_t q) { return p != q; });
    if (more.targets.size() == one.targets.size()) {
      CHECK(differing == 0);
      continue;
    }
    ++joined;
    CHECK(differing > 0);
    CHECK(differing < int64_t(one.pixels.size()));
  }
  CHECK(joined > 3);
}

TEST_CASE("close_mosaic switches mosaic, copy-paste, mixup and cutmix off from its epoch on") {
  DatasetConfig config;
  config.augment = everything();
  config.augment.cutmix = 1;
  SUBCASE("mirrored objects") {}
  SUBCASE("another image's objects") { config.augment.copy_paste_mode = CopyPasteMode::kMixup; }
  config.augment.degrees = config.augment.shear = config.augment.translate = config.augment.scale = 0;
  config.augment.flipud = config.augment.fliplr = config.augment.bgr = config.augment.hsv_h = config.augment.hsv_s =
      config.augment.hsv_v = 0;
  config.close_mosaic_at = 2;
  const auto set = shapes_set(config);
  for (int64_t i = 0; i < 5; ++i) {
    const Image plain = read_image(set->image(i).file);
    const Sample open = set->get(i, 1), closed = set->get(i, 2);
    CHECK_FALSE(std::equal(plain.pixels.begin(), plain.pixels.end(), open.pixels.begin()));
    int worst = 0;  // the way to HSV and back loses a little
    for (size_t k = 0; k < plain.pixels.size(); ++k)
      worst = std::max(worst, std::abs(int(plain.pixels[k]) - int(closed.pixels[k])));
    CHECK(worst <= 4);
    CHECK(closed.targets.size() == set->image(i).objects.size());
  }
}

TEST_CASE("validation: letterbox only, geometry that leads back, rect batches of equal shape") {
  const TempFolder folder;
  const std::vector<std::pair<int, int>> sizes = {{40, 80}, {80, 40}, {64, 64}, {30, 90}, {100, 20}, {64, 48}, {50, 50}};
  for (size_t i = 0; i < sizes.size(); ++i) {
    fs::create_directories(folder.path() / "images");
    write_png(folder.path() / "images" / (std::to_string(i) + ".png"), noise_image(sizes[i].first, sizes[i].second));
    folder.write("labels/" + std::to_string(i) + ".txt", "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n");
  }
  const std::string yaml = folder.write("data.yaml", "train: images\nval: images\nnames: [a, b]\n").string();
  DatasetConfig config;
  config.train = false;
  config.rect = true;
  config.imgsz = 64;
  config.batch = 3;
  const auto set = open_dataset(yaml, "val", config);
  REQUIRE(set->size() == 7);
  Size shape;
  for (int64_t i = 0; i < set->size(); ++i) {
    const Sample s = set->get(i, 0);
    if (i % 3 == 0) shape = {s.height, s.width};
    CHECK(Size{s.height, s.width} == shape);
    CHECK(s.height % 32 == 0);
    const ImageGeometry& g = s.geometry;
    REQUIRE(s.targets.size() == 1);
    const std::array<float, 4> b = s.targets[0].box;
    const double cx = (double(b[0]) * s.width - g.pad_left) / g.ratio_width,
                 cy = (double(b[1]) * s.height - g.pad_top) / g.ratio_height;
    CHECK(cx == doctest::Approx(g.original_width / 2.0).epsilon(0.02));
    CHECK(cy == doctest::Approx(g.original_height / 2.0).epsilon(0.02));
    CHECK(s.pixels[0] == kBorderValue);
  }
  config.rect = false;
  const auto square = open_dataset(yaml, "val", config);
  CHECK(square->get(0, 0).height == 64);
  CHECK(square->get(0, 0).width == 64);

  config.fixed = {64, 96};
  const auto wide = open_dataset(yaml, "val", config);
  const std::vector<ImageGeometry> expected = {
      // original height and width; ratios of the one resize, the smaller side rounded up; padding at the left and at the top
      {40, 80, 48.0 / 40, 96.0 / 80, 0, 8},   {80, 40, 64.0 / 80, 32.0 / 40, 32, 0}, {64, 64, 1, 1, 16, 0},
      {30, 90, 32.0 / 30, 96.0 / 90, 0, 16},  {100, 20, 64.0 / 100, 13.0 / 20, 41, 0}, {64, 48, 1, 1, 24, 0},
      {50, 50, 64.0 / 50, 64.0 / 50, 16, 0}};
  for (int64_t i = 0; i < wide->size(); ++i) {
    CAPTURE(i);
    const Sample s = wide->get(i, 0);
    CHECK(Size{s.height, s.width} == config.fixed);
    const ImageGeometry &g = s.geometry, &e = expected[size_t(i)];
    CHECK(Size{g.original_height, g.original_width} == Size{e.original_height, e.original_width});
    CHECK(g.ratio_height == e.ratio_height);
    CHECK(g.ratio_width == e.ratio_width);
    CHECK(g.pad_left == e.pad_left);
    CHECK(g.pad_top == e.pad_top);
  }
}

TEST_CASE("class filter, single class, fraction, and values out of range") {
  DatasetConfig config;
  config.classes = {1, 3};
  auto set = shapes_set(config);
  const std::vector<int64_t> counts = set->objects_by_class();
  CHECK(counts[0] + counts[2] + counts[4] == 0);
  CHECK(counts[1] + counts[3] > 0);
  config.classes = {5};
  CHECK_THROWS_AS(shapes_set(config), Error);
  config.classes = {};
  config.single_cls = true;
  config.fraction = 0.5;
  set = shapes_set(config);
  CHECK(set->names() == std::vector<std::string>{"item"});
  CHECK(set->size() == 10);
  config.augment.mosaic = 1.5;
  CHECK_THROWS_AS(shapes_set(config), Error);
}

TEST_CASE("loader: the same batches for 0, 1 and 3 threads, run after run, and when resumed") {
  DatasetConfig config;
  config.augment = everything();
  const auto set = shapes_set(config);
  Loader none(*set, loader_options(0)), one(*set, loader_options(1)), three(*set, loader_options(3));
  CHECK(none.batches() == 5);
  for (int epoch = 0; epoch < 2; ++epoch) {
    const std::vector<uint64_t> expected = digests(none, epoch);
    CHECK(expected.size() == 5);
    CHECK(digests(one, epoch) == expected);
    CHECK(digests(three, epoch) == expected);
    CHECK(digests(three, epoch) == expected);
    const std::vector<uint64_t> rest = digests(three, epoch, 3);
    CHECK(rest == std::vector<uint64_t>(expected.begin() + 3, expected.end()));
  }
  CHECK(digests(one, 0) != digests(one, 1));
  Loader in_order(*set, loader_options(1, false));
  in_order.start_epoch(2);
  Batch batch;
  REQUIRE(in_order.next(batch));
  const Sample third = set->get(2, 2);
  CHECK(std::equal(third.pixels.begin(), third.pixels.end(), batch.images.data<uint8_t>() + 2 * third.pixels.size()));
  const auto again = shapes_set(config);
  Loader other(*again, loader_options(2));
  CHECK(digests(other, 1) == digests(one, 1));
}

TEST_CASE("a set that begins in a later epoch makes the items of one that went through all, whatever came before") {
  DatasetConfig config;
  config.partners = MosaicPartners::kBuffer;
  const auto walked = shapes_set(config);
  for (int epoch = 0; epoch < 5; ++epoch) {
    CAPTURE(epoch);
    const auto fresh = shapes_set(config), back = shapes_set(config);
    back->get(0, 3), back->get(0, 1);
    for (int64_t i = 0; i < fresh->size(); ++i) {
      const Sample s = walked->get(i, epoch);
      CHECK(same(s, fresh->get(i, epoch)));
      CHECK(same(s, back->get(i, epoch)));
    }
  }
}

TEST_CASE("shuffled orders: permutations, a new one each epoch, in which any image comes at any place") {
  std::set<std::vector<int64_t>> orders;
  std::set<std::pair<int64_t, int64_t>> places;
  for (int epoch = 0; epoch < 100; ++epoch) {
    const std::vector<int64_t> order = shuffled_order(5, 7, epoch);
    CHECK(std::set<int64_t>(order.begin(), order.end()) == std::set<int64_t>{0, 1, 2, 3, 4});
    CHECK(order == shuffled_order(5, 7, epoch));
    orders.insert(order);
    for (int64_t i = 0; i < 5; ++i) places.insert({i, order[size_t(i)]});
  }
  CHECK(orders.size() > 30);
  CHECK(places.size() == 25);
  CHECK(shuffled_order(40, 7, 0) != shuffled_order(40, 8, 0));
  const auto set = shapes_set({});
  CHECK(set->order(0) != set->order(1));
  Loader loader(*set, loader_options(1));
  for (const int epoch : {0, 1}) {
    loader.start_epoch(epoch);
    Batch batch;
    REQUIRE(loader.next(batch));
    const std::vector<int64_t> order = set->order(epoch);
    CHECK(std::equal(batch.indices.begin(), batch.indices.end(), order.begin()));
  }
}

TEST_CASE("loader: an epoch may be left at any time, and the loader destroyed with work in hand") {
  DatasetConfig config;
  const auto set = shapes_set(config);
  Batch batch;
  for (int k = 0; k < 20; ++k) {
    Loader loader(*set, loader_options(3));
    loader.start_epoch(k);
    if (k % 2 == 0) loader.next(batch);
    if (k % 3 == 0) loader.start_epoch(k + 1, 1), loader.next(batch);
  }
  Loader idle(*set, loader_options(2));
  CHECK_FALSE(idle.next(batch));  // no epoch was started
}

TEST_CASE("loader: every item once, the last batch short, ranks share the items") {
  FaultySet set;
  LoaderOptions options = loader_options(2);
  options.batch = 7;
  std::multiset<int64_t> seen;
  Batch batch;
  for (int rank = 0; rank < 3; ++rank) {
    options.world = 3;
    options.rank = rank;
    Loader loader(set, options);
    CHECK(loader.items() == 14);
    loader.start_epoch(0);
    while (loader.next(batch)) seen.insert(batch.indices.begin(), batch.indices.end());
  }
  CHECK(seen.size() == 42);
  CHECK(std::set<int64_t>(seen.begin(), seen.end()).size() == 40);
  // For a validation: every item once, and as many rounds on all ranks though one has a batch more.
  options.fill = options.shuffle = false;
  options.batch = 13;
  std::vector<int64_t> once;
  for (int rank = 0; rank < 3; ++rank) {
    options.rank = rank;
    Loader loader(set, options);
    CHECK(loader.items() == (rank == 0 ? 14 : 13));
    CHECK(loader.batches() == (rank == 0 ? 2 : 1));
    CHECK(loader.rounds() == 2);
    loader.start_epoch(0);
    while (loader.next(batch)) once.insert(once.end(), batch.indices.begin(), batch.indices.end());
  }
  std::sort(once.begin(), once.end());
  std::vector<int64_t> all_items(40);
  std::iota(all_items.begin(), all_items.end(), int64_t(0));
  CHECK(once == all_items);
  options = loader_options(2);
  options.batch = 7;
  options.world = 1;
  options.rank = 0;
  Loader all(set, options);
  all.start_epoch(0);
  int64_t batches = 0, last = 0;
  while (all.next(batch)) ++batches, last = batch.size();
  CHECK(batches == 6);
  CHECK(last == 5);
}

// Reads `batches` and then the error, after which the epoch is over and another one can begin in its middle.
std::string error_that_ends_the_epoch(Loader& loader, int64_t& batches) {
  Batch batch;
  std::string message;
  batches = 0;
  try {
    while (loader.next(batch)) ++batches;
  } catch (const Error& e) {
    message = e.message();
  }
  CHECK_FALSE(loader.next(batch));
  loader.start_epoch(0, 6);
  CHECK(loader.next(batch));
  CHECK(batch.indices[0] == 24);
  return message;
}

TEST_CASE("loader: an exception arrives with its batch, that of the first item, and the loader lives on") {
  FaultySet set;
  set.bad = {13, 14, 22};
  for (const int threads : {0, 3}) {
    LoaderOptions options = loader_options(threads, false);
    Loader loader(set, options);
    loader.start_epoch(0);
    int64_t batches;
    CHECK(error_that_ends_the_epoch(loader, batches) == "item 13");
    CHECK(batches == 3);
  }
}

TEST_CASE("loader: a batch that no memory holds ends the epoch, and the loader lives on") {
  FaultySet set;
  set.too_large = 16;
  for (const int threads : {0, 3}) {
    const LoaderOptions options = loader_options(threads, false);
    Loader loader(set, options);
    loader.start_epoch(0);
    int64_t batches;
    CHECK(!error_that_ends_the_epoch(loader, batches).empty());
    CHECK(batches <= 4);
  }
}

TEST_CASE("loader: fewer threads than asked for are an error, and none is left behind") {
  FaultySet set;
  const std::string message = testing::error_with_few_threads([&] { Loader loader(set, loader_options(8)); });
  CHECK(message.find("starts no more threads") != std::string::npos);
  CHECK(message.find("--workers") != std::string::npos);
  Loader loader(set, loader_options(8));
  loader.start_epoch(0);
  Batch batch;
  CHECK(loader.next(batch));
}

TEST_CASE("collate: shapes, owners and both forms of masks") {
  DatasetConfig config;
  for (const bool overlap : {true, false}) {
    config.overlap_mask = overlap;
    const auto set = shapes_set(config, "val");
    std::vector<Sample> samples;
    int64_t targets = 0;
    std::vector<int32_t> owners;
    for (int32_t i = 0; i < 3; ++i) {
      samples.push_back(set->get(i, 0));
      targets += int64_t(samples.back().targets.size());
      owners.insert(owners.end(), samples.back().targets.size(), i);
    }
    const PixelBuffer second = samples[1].pixels;
    const Batch batch = collate(std::move(samples));
    CHECK(batch.images.shape() == Shape{3, 64, 64, 3});
    CHECK(batch.masks.shape() == Shape{overlap ? 3 : targets, 16, 16});
    CHECK(int64_t(batch.targets.size()) == targets);
    CHECK(std::equal(second.begin(), second.end(), batch.images.data<uint8_t>() + 64 * 64 * 3));
    CHECK(batch.target_image == owners);
  }
}

TEST_CASE("pixels written in place are those of the sample") {
  DatasetConfig config;
  config.augment = everything();
  for (const char* split : {"train", "val"}) {
    config.train = std::string_view(split) == "train";
    const auto set = shapes_set(config, split);
    const Size size = set->pixel_size(3);
    std::vector<uint8_t> place(size_t(size.height) * size_t(size.width) * 3 + 1, 77);
    const Sample alone = set->get(3, 1), placed = set->get_into(3, 1, place.data()),
                 generic = set->Dataset::get_into(3, 1, place.data());
    CHECK(placed.pixels.empty());
    CHECK(placed.masks == alone.masks);
    CHECK(generic.pixels.empty());
    REQUIRE(alone.pixels.size() + 1 == place.size());
    CHECK(std::equal(alone.pixels.begin(), alone.pixels.end(), place.begin()));
    CHECK(place.back() == 77);
    std::fill(place.begin(), place.end(), uint8_t(0));
    set->get_into(3, 1, place.data());
    CHECK(std::equal(alone.pixels.begin(), alone.pixels.end(), place.begin()));
  }
  config.train = config.plan_pixels = true;
  CHECK(shapes_set(config)->pixel_size(0).height == 0);  // they are made elsewhere
}

TEST_CASE("loader bench: counts samples and splits their time") {
  DatasetConfig config;
  const auto set = shapes_set(config);
  LoaderBenchOptions options;
  options.samples = 24;
  options.warmup = 4;
  const LoaderBench b = run_loader_bench(*set, options);
  CHECK(b.samples >= 24);
  CHECK(b.core_ms > 0);
  const double parts = b.decode_ms + b.labels_ms + b.pixels_ms + b.rasterize_ms;
  CHECK(parts > 0);
  CHECK(parts < 1.5 * b.core_ms);  // samples made ahead count with the batch before
}
