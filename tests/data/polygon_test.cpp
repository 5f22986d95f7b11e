#include "data/polygon.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <utility>

#include "data/rasterize.h"
#include "tests/data/support.h"

using namespace tessera;
using tessera::test::rows_of_bits;

namespace {

std::vector<std::string> filled(std::vector<PixelPoint> polygon, int h, int w) {
  std::vector<uint8_t> plane(size_t(h) * size_t(w), 0);
  fill_polygon(std::span<const PixelPoint>(polygon), plane.data(), h, w);
  std::vector<std::string> rows(static_cast<size_t>(h));
  for (size_t y = 0; y < rows.size(); ++y)
    for (int x = 0; x < w; ++x) rows[y] += char('0' + plane[y * size_t(w) + size_t(x)]);
  return rows;
}

Instance instance(Polygon polygon) { return {0, bounding_box(polygon), std::move(polygon)}; }

Polygon square(float x1, float x2) { return {{x1, x1}, {x2, x1}, {x2, x2}, {x1, x2}}; }

}  // namespace

TEST_CASE("fill: vertices outside, and a crossed quadrilateral") {
  CHECK(filled({{1, 0}, {8, 2}, {3, 6}}, 6, 8) ==
        std::vector<std::string>{"01100000", "01111100", "00111111", "00111110", "00011100", "00011000"});
  CHECK(filled({{0, 0}, {7, 5}, {7, 0}, {0, 5}}, 6, 8) ==
        std::vector<std::string>{"10000001", "11100111", "11111111", "11111111", "11100111", "10000001"});
}

TEST_CASE("fill: points, lines, and polygons wholly or far outside") {
  CHECK(filled({{2, 1}}, 3, 4) == std::vector<std::string>{"0000", "0010", "0000"});
  CHECK(filled({{0, 2}, {3, 2}}, 3, 4) == std::vector<std::string>{"0000", "0000", "1111"});
  CHECK(filled({{10, 10}, {20, 10}, {15, 20}}, 3, 4) == std::vector<std::string>{"0000", "0000", "0000"});
  CHECK(filled({{-9000000, -9000000}, {9000000, -9000000}, {9000000, 9000000}, {-9000000, 9000000}}, 2, 3) ==
        std::vector<std::string>{"111", "111"});
}

TEST_CASE("fill: any polygons as OpenCV 5.0 fills them, also beyond the plane and in rows of many words") {
  uint32_t state = 1;
  const auto draw = [&](int from, int count) { return from + int((state = state * 1664525u + 1013904223u) >> 8) % count; };
  uint64_t hash = 0xcbf29ce484222325u;
  for (int round = 0; round < 400; ++round) {
    const int h = draw(1, 60), w = draw(1, 140), vertices = draw(1, 9), margin = round % 4 * 20, near = round % 3;
    std::vector<PixelPoint> polygon;
    for (int k = 0; k < vertices; ++k) {
      const bool step = near > 0 && k > 0;  // small steps, or anywhere
      const int x = step ? polygon.back().x + draw(-near, 2 * near + 1) : draw(-margin, w + 2 * margin);
      const int y = step ? polygon.back().y + draw(-near, 2 * near + 1) : draw(-margin, h + 2 * margin);
      polygon.push_back({x, y});
    }
    std::vector<uint8_t> plane(size_t(h) * size_t(w), 0);
    const PixelBox box = fill_polygon(std::span<const PixelPoint>(polygon), plane.data(), h, w);
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) {
        const uint8_t v = plane[size_t(y) * size_t(w) + size_t(x)];
        if (v != 0) REQUIRE((x >= box.x0 && x < box.x1 && y >= box.y0 && y < box.y1));
        hash = (hash ^ v) * 0x100000001b3u;
      }
  }
  CHECK(hash == 0x632832cc1f8e9bf1u);
}

TEST_CASE("fill reports the rectangle that it drew in") {
  std::vector<uint8_t> plane(20 * 30, 0);
  const PixelBox box = fill_polygon(std::span<const Point>(square(5, 9)), plane.data(), 20, 30);
  CHECK(box.x0 == 5);
  CHECK(box.x1 == 10);
  CHECK(box.y0 == 5);
  CHECK(box.y1 == 10);
  CHECK(std::accumulate(plane.begin(), plane.end(), 0) == 25);
}

TEST_CASE("resample keeps the vertices and repeats the closing one") {
  const Polygon expected = {{0, 0}, {0, 0}, {2.4f, 0}, {4, 0}, {4, 0.4f}, {4, 1.6f}, {4, 2}, {2.4f, 1.2f}, {0, 0}, {0, 0}};
  const Polygon triangle = {{0, 0}, {4, 0}, {4, 2}};
  const Polygon out = resample(triangle, 10);
  REQUIRE(out.size() == 10);
  for (size_t i = 0; i < 10; ++i) {
    CHECK(out[i].x == doctest::Approx(expected[i].x));
    CHECK(out[i].y == doctest::Approx(expected[i].y));
  }
  CHECK(resample(triangle, 3) == triangle);
  CHECK(resample(Polygon(7, Point{1, 1}), 5) == Polygon(5, Point{1, 1}));
  CHECK(resample_count(12) == 1000);
  CHECK(resample_count(1000) == 1000);
  CHECK(resample_count(1001) == 1002);
}

TEST_CASE("merge of three squares") {
  const std::vector<Polygon> parts = {
      {{0, 0}, {2, 0}, {2, 2}, {0, 2}}, {{5, 0}, {7, 0}, {7, 2}, {5, 2}}, {{10, 0}, {12, 0}, {12, 2}, {10, 2}}};
  CHECK(merge_parts(parts) == Polygon{{2, 0},
                                      {2, 2},
                                      {0, 2},
                                      {0, 0},
                                      {2, 0},
                                      {5, 0},
                                      {7, 0},
                                      {10, 0},
                                      {12, 0},
                                      {12, 2},
                                      {10, 2},
                                      {10, 0},
                                      {7, 0},
                                      {7, 2},
                                      {5, 2},
                                      {5, 0}});
  CHECK(merge_parts(std::span(parts).first(1)) == parts[0]);
}

TEST_CASE("contours: rectangle, one-pixel row, order, holes") {
  const auto contours = [](const std::vector<std::string>& rows) {
    std::vector<uint8_t> plane;
    for (const std::string& r : rows)
      for (const char c : r) plane.push_back(c == '1');
    const int h = int(rows.size()), w = int(rows[0].size());
    return external_contours(rows_of_bits(plane, h, w).data(), h, w);
  };
  CHECK(contours({"0000", "0111", "0111"}) == std::vector<std::vector<PixelPoint>>{{{1, 1}, {1, 2}, {3, 2}, {3, 1}}});
  CHECK(contours({"0111"}) == std::vector<std::vector<PixelPoint>>{{{1, 0}, {3, 0}}});
  CHECK(contours({"1", "0", "1"}) == std::vector<std::vector<PixelPoint>>{{{0, 2}}, {{0, 0}}});
  // The lone pixel in the hole is left out.
  CHECK(contours({"11111", "10001", "10101", "10001", "11111"}).size() == 1);
  CHECK(contours({"000"}).empty());
}

namespace {

struct Plane {
  int h, w;
  std::vector<uint8_t> set;

  Plane(int height, int width) : h(height), w(width), set(size_t(height) * size_t(width), 0) {}
  uint8_t& at(int x, int y) { return set[size_t(y) * size_t(w) + size_t(x)]; }
  bool inside(int x, int y) const { return x >= 0 && y >= 0 && x < w && y < h; }

  // Sets all that is `value` and connected with (x, y), over corners too or not, to `to`.
  void flood(int x, int y, uint8_t value, uint8_t to, bool corners) {
    std::vector<PixelPoint> open{{x, y}};
    while (!open.empty()) {
      const PixelPoint p = open.back();
      open.pop_back();
      if (!inside(p.x, p.y) || at(p.x, p.y) != value) continue;
      at(p.x, p.y) = to;
      for (int dy = -1; dy <= 1; ++dy)
        for (int dx = -1; dx <= 1; ++dx)
          if (corners || dx == 0 || dy == 0) open.push_back({p.x + dx, p.y + dy});
    }
  }
  // Its holes filled, with all that is in them.
  Plane solid() const {
    Plane wide(h + 2, w + 2), out(h, w);
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) wide.at(x + 1, y + 1) = set[size_t(y) * size_t(w) + size_t(x)];
    wide.flood(0, 0, 0, 2, false);
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) out.at(x, y) = wide.at(x + 1, y + 1) != 2;
    return out;
  }
};

Plane random_mask(int kind, int h, int w, std::mt19937& rng) {
  Plane p(h, w);
  if (kind < 6) {
    const unsigned percent[] = {0, 3, 30, 60, 95, 100};
    for (uint8_t& v : p.set) v = rng() % 100 < percent[kind];
  } else if (kind == 6) {  // diagonals that touch at corners only
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) p.at(x, y) = (x + y) % 2 == 0 || rng() % 20 == 0;
  } else if (kind == 7) {  // frames within frames
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) p.at(x, y) = std::min({x, y, w - 1 - x, h - 1 - y}) % 2 == 0 && rng() % 30 != 0;
  } else {  // discs and what they cut out
    for (int i = 0; i < 9; ++i) {
      const int cx = int(rng() % unsigned(w)), cy = int(rng() % unsigned(h)), r = int(rng() % unsigned(h / 2 + 2));
      for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x)
          if ((x - cx) * (x - cx) + (y - cy) * (y - cy) <= r * r) p.at(x, y) = i % 3 != 2;
    }
  }
  return p;
}

}  // namespace

TEST_CASE("contours: filled again they are the mask without its holes, a component each, in order") {
  std::mt19937 rng(5);
  for (int round = 0; round < 400; ++round) {
    const int w = round % 3 == 0 ? 61 + int(rng() % 7) : 1 + int(rng() % 150), h = 1 + int(rng() % 40);
    CAPTURE(round);
    CAPTURE(h);
    CAPTURE(w);
    const Plane mask = random_mask(round % 9, h, w, rng);
    const auto contours = external_contours(rows_of_bits(mask.set, h, w).data(), h, w);
    Plane left = mask.solid();
    // From the last to the first: by first pixel in raster order.
    auto contour = contours.rbegin();
    for (int y = 0; y < h; ++y) {
      for (int x = 0; x < w; ++x) {
        if (left.at(x, y) != 1) continue;
        REQUIRE(contour != contours.rend());
        Plane component = left, drawn(h, w);
        component.flood(x, y, 1, 2, true);
        for (uint8_t& v : component.set) v = v == 2;
        fill_polygon(std::span<const PixelPoint>(*contour), drawn.set.data(), h, w);
        REQUIRE(drawn.set == component.set);
        left.flood(x, y, 1, 0, true);
        // Straight or diagonal edges between corners: pixels of the outline.
        const size_t n = contour->size();
        for (size_t i = 0; i < n; ++i) {
          const auto edge = [&](size_t j) {
            const PixelPoint a = (*contour)[j % n], b = (*contour)[(j + 1) % n];
            return std::pair{b.x - a.x, b.y - a.y};
          };
          const auto [dx, dy] = edge(i);
          const auto [ex, ey] = edge(i + 1);
          if (n > 1) REQUIRE((dx == 0 || dy == 0 || std::abs(dx) == std::abs(dy)));
          if (n > 2) REQUIRE((dx * ey != dy * ex || dx * ex + dy * ey < 0));
        }
        ++contour;
      }
    }
    CHECK(contour == contours.rend());
  }
}

TEST_CASE("raster of one polygon, full and reduced") {
  const Polygon polygon = {{2.9f, 1.2f}, {20.7f, 3.9f}, {15.1f, 14.8f}, {4.4f, 11}};
  const std::vector<Instance> one = {instance(polygon)};
  const MaskTargets full = separate_masks(one, 16, 24, 1);
  const std::vector<int> per_row = {0, 5, 14, 19, 18, 17, 17, 16, 16, 14, 14, 13, 11, 6, 2, 0};
  for (size_t y = 0; y < 16; ++y)
    CHECK(std::accumulate(full.values.begin() + int64_t(y) * 24, full.values.begin() + int64_t(y + 1) * 24, 0) == per_row[y]);
  const MaskTargets reduced = separate_masks(one, 16, 24, 4);
  std::string text;
  for (const int32_t v : reduced.values) text += char('0' + v);
  CHECK(text ==
        "111100"
        "011110"
        "011110"
        "000100");
}

TEST_CASE("overlap map: zero areas first, then falling area, smaller ones in front") {
  const std::vector<Instance> objects = {instance({{3, 3}}), instance(square(100, 200)), instance(square(300, 400)),
                                         instance(square(10, 500)), instance({{9, 9}})};
  const MaskTargets m = overlap_masks(objects, 640, 640, 4);
  CHECK(m.order == std::vector<int64_t>{0, 4, 3, 1, 2});
  std::vector<int64_t> counts(6, 0);
  for (const int32_t v : m.values) ++counts[size_t(v)];
  CHECK(counts == std::vector<int64_t>{10472, 0, 0, 13878, 625, 625});
}

TEST_CASE("overlap map with 200 objects keeps every label") {
  std::vector<Instance> objects;
  for (int i = 0; i < 200; ++i) objects.push_back(instance(square(0, float(8 + 4 * (200 - i) / 2))));
  const MaskTargets m = overlap_masks(objects, 640, 640, 4);
  CHECK(m.values[0] == 200);
}

TEST_CASE("odd ratios and sizes go through the general reduction") {
  const std::vector<Instance> one = {instance(square(0, 63))};
  const MaskTargets m = separate_masks(one, 64, 64, 3);
  CHECK(m.height == 21);
  CHECK(std::accumulate(m.values.begin(), m.values.end(), 0) == 21 * 21);
  CHECK(separate_masks(one, 62, 64, 4).height == 15);
}
