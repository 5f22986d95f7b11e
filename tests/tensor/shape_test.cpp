#include "tensor/shape.h"

#include <doctest/doctest.h>

#include "tensor/base/check.h"

namespace tessera {
namespace {

TEST_CASE("shapes: size, strides, text") {
  CHECK(numel({}) == 1);
  CHECK(numel({3, 0, 5}) == 0);
  CHECK(numel({2, 3, 4}) == 24);
  CHECK(dense_strides({2, 3, 4}) == Strides{12, 4, 1});
  CHECK(dense_strides({}) == Strides{});
  CHECK(to_string(Shape{16, 80, 80, 64}) == "[16, 80, 80, 64]");
  CHECK(to_string(Shape{}) == "[]");
  CHECK(Shape{1, 2} != Shape{1, 2, 1});
  CHECK(Dims::filled(3, 7) == Shape{7, 7, 7});
  CHECK(Shape{1, 2, 3}.back() == 3);
  CHECK_THROWS_AS((Shape{1, 2, 3, 4, 5, 6}), Error);
}

TEST_CASE("broadcasting aligns at the last axis") {
  CHECK(broadcast({4, 3, 5}, {3, 1}) == Shape{4, 3, 5});
  CHECK(broadcast({1}, {2, 2}) == Shape{2, 2});
  CHECK(broadcast({}, {7}) == Shape{7});
  CHECK(broadcast({6, 1}, {1, 9}) == Shape{6, 9});
  CHECK(broadcast({0, 3}, {1}) == Shape{0, 3});
  CHECK(broadcast({1, 3}, {0, 1}) == Shape{0, 3});
  CHECK_THROWS_AS(broadcast({2, 3}, {2, 4}), Error);
  CHECK_THROWS_AS(broadcast({2, 3}, {2}), Error);
}

TEST_CASE("axes count from the end when negative") {
  CHECK(normalize_axis(0, 3) == 0);
  CHECK(normalize_axis(-1, 3) == 2);
  CHECK(normalize_axis(-3, 3) == 0);
  CHECK_THROWS_AS(normalize_axis(3, 3), Error);
  CHECK_THROWS_AS(normalize_axis(-4, 3), Error);
  CHECK_THROWS_AS(normalize_axis(0, 0), Error);
}

}  // namespace
}  // namespace tessera
