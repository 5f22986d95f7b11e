// Training images made on the device (tensor/augment.h) against the loader's own, for the same random numbers.
#include "tensor/augment.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "data/dataset.h"
#include "data/shapes.h"
#include "data/transforms/hsv.h"
#include "tests/cuda_host/emulator.h"
#include "tests/support/temp_folder.h"

namespace tessera::testing {
namespace {

struct Difference {
  int most = 0;
  int64_t differing = 0, pixels = 0;
};

Tensor made_of(std::span<const AugmentItem> items, std::span<const uint8_t> tiles, int64_t height, int64_t width, Device device) {
  const Tensor images = Tensor::empty({int64_t(items.size()), height, width, 3}, DType::kU8, device);
  check_items(items, int64_t(tiles.size()), height, width);
  const auto on_device = [&](const void* p, size_t bytes) {
    const Tensor host = Tensor::empty({int64_t(bytes)}, DType::kU8);
    std::memcpy(host.raw(), p, bytes);
    return host.to(device);
  };
  augment_images(on_device(items.data(), items.size_bytes()), on_device(tiles.data(), tiles.size()), images);
  return images;
}

Difference compare(const AugmentConfig& augment, int samples, int close_mosaic_at = -1) {
  const testing::TempFolder folder;
  DatasetConfig config;
  config.imgsz = 64;
  config.seed = 3;
  config.augment = augment;
  config.close_mosaic_at = close_mosaic_at;
  const std::string data = make_shapes(folder.path(), {.train = 12, .val = 1, .size = 96}).string();
  const auto set = open_dataset(data, "train", config);
  config.plan_pixels = true;
  const auto planned = open_dataset(data, "train", config);
  std::vector<Sample> expected;
  std::vector<PixelPlan> plans(static_cast<size_t>(samples));
  for (int i = 0; i < samples; ++i) {
    expected.push_back(set->get(i, 1));
    Sample without = planned->get(i, 1);
    CHECK(without.pixels.empty());
    REQUIRE(without.plan.has_value());
    plans[size_t(i)] = std::move(*without.plan);
    CHECK(without.masks == expected.back().masks);
    CHECK(without.height == expected.back().height);
    REQUIRE(without.targets.size() == expected.back().targets.size());
    for (size_t t = 0; t < without.targets.size(); ++t) {
      CHECK(without.targets[t].class_id == expected.back().targets[t].class_id);
      CHECK(without.targets[t].box == expected.back().targets[t].box);
    }
  }
  const PackedTiles packed = pack_tiles(plans, 64, 64);
  const Tensor made = made_of(packed.items, packed.bytes, 64, 64, Device::cuda()).to(Device::cpu());
  CHECK(emulated::take_reports().empty());
  Difference d;
  const auto* at = made.data<uint8_t>();
  for (const Sample& s : expected) {
    REQUIRE(s.pixels.size() == 64 * 64 * 3);
    for (const uint8_t v : s.pixels) {
      const int difference = std::abs(int(v) - int(*at++));
      d.most = std::max(d.most, difference);
      d.differing += difference != 0;
      ++d.pixels;
    }
  }
  return d;
}

TEST_CASE("augmentation on the device: the loader's images within one grey level") {
  AugmentConfig usual;
  AugmentConfig turned = usual, deep = usual, mixed = usual, pasted = usual, cut = usual, odd = usual, plain = usual, still = usual;
  turned.degrees = 30, turned.shear = 10;
  deep.perspective = 0.001, deep.degrees = 10;
  mixed.mixup = 0.5;
  pasted.copy_paste = 1;
  cut.cutmix = 0.5, cut.copy_paste = 0.5, cut.copy_paste_mode = CopyPasteMode::kMixup;
  odd.flipud = 0.5, odd.bgr = 0.5, odd.hsv_h = 0.5, odd.hsv_s = 1, odd.hsv_v = 1, odd.scale = 0.9;
  plain.mosaic = 0, plain.degrees = 5;
  still.hsv_h = still.hsv_s = still.hsv_v = 0;
  const std::pair<const char*, AugmentConfig> all[] = {{"usual", usual},
                                                       {"turned", turned},
                                                       {"perspective", deep},
                                                       {"mixup", mixed},
                                                       {"copy-paste", pasted},
                                                       {"odd colours", odd},
                                                       {"no mosaic", plain},
                                                       {"cutmix, pasting from others", cut},
                                                       {"colours as they are", still}};
  for (const auto& [name, config] : all) {
    CAPTURE(name);
    const Difference d = compare(config, 8);
    MESSAGE(std::string(name), ": ", d.differing, " of ", d.pixels, " values differ, at most by ", d.most);
    CHECK(d.most <= 1);
  }
  CHECK(compare(usual, 4, 0).most <= 1);  // the last epochs: letterbox only
}

TEST_CASE("augmentation on the device: a hue of 180 is one of 0, and there are no tiles beyond their number") {
  constexpr int kSide = 64;
  const HsvChange change({.hue = 60.5 / 180});
  REQUIRE(change.hue_shift() == 60);
  std::vector<uint8_t> shades;  // of blue, whose hue is 120
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      for (const int v : {std::min(x, y), std::min(x, y), std::max(x, y)}) shades.push_back(uint8_t(v));
    }
  }
  AugmentItem all;
  all.path = AugmentPath::kAffine;
  all.canvas_height = all.canvas_width = kSide;
  all.hue_shift = change.hue_shift();
  all.tile_count = 1;
  all.tiles[0] = {0, kSide, kSide, 0, 0};
  AugmentItem half = all;
  half.tiles[0].height = half.tiles[1].height = kSide / 2;
  half.tiles[1].y = kSide / 2;  // not counted: border
  half.tiles[1].width = kSide;
  std::vector<uint8_t> expected = shades;
  expected.insert(expected.end(), shades.begin(), shades.begin() + std::ptrdiff_t(shades.size() / 2));
  expected.resize(2 * shades.size(), 114);
  change.apply(expected.data(), int64_t(expected.size() / 3), false, expected.data());
  const AugmentItem items[] = {all, half};
  CHECK(made_of(items, shades, kSide, kSide, Device::cuda()).to_vector<uint8_t>() == expected);
  CHECK(emulated::take_reports().empty());
}

TEST_CASE("augmentation on the device: what does not fit is refused before it runs") {
  AugmentItem item;
  item.tile_count = 1;
  item.tiles[0] = {0, 8, 8, 0, 0};
  item.canvas_height = item.canvas_width = 8;
  const std::vector<uint8_t> tiles(8 * 8 * 3, 7);
  const AugmentItem items[] = {item};
  CHECK(made_of(items, tiles, 8, 8, Device::cuda()).to_vector<uint8_t>() == tiles);
  CHECK_THROWS_AS(made_of(items, tiles, 8, 9, Device::cuda()), Error);
  CHECK_THROWS_AS(made_of(items, std::span(tiles).first(8 * 8 * 3 - 1), 8, 8, Device::cuda()), Error);
  CHECK_THROWS_AS(made_of(items, tiles, 8, 8, Device::cpu()), Error);
  CHECK(made_of({}, tiles, 8, 8, Device::cuda()).numel() == 0);
}

}  // namespace
}  // namespace tessera::testing
