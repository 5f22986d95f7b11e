// Sizes of the batches of --multi-scale.
#include "yolo/train/multi_scale.h"

#include <doctest/doctest.h>

#include <map>
#include <vector>

using namespace tessera;

TEST_CASE("multi_scale: sizes as the original draws them") {
  CHECK(multi_scale_range(128).least == 64);
  CHECK(multi_scale_range(128).largest == 192);
  CHECK(multi_scale_range(640).least == 320);
  CHECK(multi_scale_range(640).largest == 960);
  CHECK(multi_scale_range(32).least == 32);  // where the original's would be 0
  // Of an image of 128 x 96 (height, width); the five are equally likely.
  const std::map<int64_t, Size> inputs = {{64, {64, 64}}, {96, {96, 96}}, {128, {128, 96}}, {160, {160, 128}}, {192, {192, 160}}};
  std::map<int64_t, int> drawn;
  for (int64_t epoch = 0; epoch < 20; ++epoch)
    for (int64_t batch = 0; batch < 100; ++batch) ++drawn[multi_scale_side(128, 3, epoch, batch)];
  REQUIRE(drawn.size() == inputs.size());
  for (const auto& [side, size] : inputs) {
    CAPTURE(side);
    CHECK(multi_scale_input({128, 96}, side) == size);
    CHECK(drawn[side] > 340);
    CHECK(drawn[side] < 460);
  }
}

TEST_CASE("multi_scale: a size is a function of seed, epoch and batch") {
  const auto row = [](uint64_t seed, int64_t epoch) {
    std::vector<int64_t> sides;
    for (int64_t batch = 0; batch < 40; ++batch) sides.push_back(multi_scale_side(640, seed, epoch, batch));
    return sides;
  };
  CHECK(row(0, 0) == row(0, 0));
  CHECK(row(0, 0) != row(1, 0));
  CHECK(row(0, 0) != row(0, 1));
}
