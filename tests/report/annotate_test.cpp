#include "yolo/report/annotate.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "yolo/report/canvas.h"
#include "yolo/report/grid.h"

using namespace tessera;

namespace {

Image noise(int height, int width, unsigned seed = 1) {
  Image image(height, width);
  std::mt19937 random(seed);
  for (uint8_t& v : image.pixels) v = uint8_t(random());
  return image;
}

bool same_pixel(const Image& a, const Image& b, int y, int x) {
  return std::equal(a.row(y) + 3 * x, a.row(y) + 3 * x + 3, b.row(y) + 3 * x);
}

Rgb pixel(const Image& image, int y, int x) { return {image.row(y)[3 * x], image.row(y)[3 * x + 1], image.row(y)[3 * x + 2]}; }

// A disc of radius 18 in a rectangle of 40 x 50 pixels.
Annotation disc(int x0, int y0) {
  Annotation a{3, "", {float(x0), float(y0), float(x0 + 40), float(y0 + 50)}, {{x0, y0, x0 + 40, y0 + 50}, {}}};
  for (int y = 0; y < 50; ++y) {
    for (int x = 0; x < 40; ++x) a.mask.bytes.push_back(std::hypot(x - 20, y - 25) < 18);
  }
  return a;
}

}  // namespace

TEST_CASE("a mask blends its own pixels, outlines them, and leaves the others alone") {
  const Image before = noise(120, 160);
  Image after = before;
  const Annotation a = disc(60, 30);
  AnnotateOptions options;
  options.boxes = false;
  annotate(after, std::span(&a, 1), options);
  const Rgb c = class_color(3);
  int blended = 0, outlined = 0;
  for (int y = 0; y < before.height; ++y) {
    for (int x = 0; x < before.width; ++x) {
      const auto set = [&](int v, int u) { return std::hypot(u - 60 - 20, v - 30 - 25) < 18; };
      if (!set(y, x)) {
        REQUIRE(same_pixel(before, after, y, x));
      } else if (set(y - 1, x) && set(y + 1, x) && set(y, x - 1) && set(y, x + 1)) {
        const Rgb p = pixel(before, y, x);
        REQUIRE(pixel(after, y, x) ==
                Rgb{uint8_t((p.r + c.r + 1) / 2), uint8_t((p.g + c.g + 1) / 2), uint8_t((p.b + c.b + 1) / 2)});
        ++blended;
      } else {
        REQUIRE(pixel(after, y, x) == c);
        ++outlined;
      }
    }
  }
  CHECK(blended > 700);
  CHECK(outlined > 70);
}

TEST_CASE("a box changes its lines only, as wide as the image asks for") {
  for (const auto& [side, expected] : {std::pair{160, 1}, {640, 2}, {1000, 3}, {2000, 6}}) {
    Image image(side, side);
    std::fill(image.pixels.begin(), image.pixels.end(), uint8_t(0));
    const Annotation a{0, "", {40, 50, 120, 130}, {}};
    annotate(image, std::span(&a, 1));
    const auto drawn = [&](int y, int x) { return !(pixel(image, y, x) == Rgb{0, 0, 0}); };
    int width = 0;
    for (int x = 0; x < 80; ++x) width += drawn(90, x);
    INFO("side " << side);
    CHECK(width == expected);
    for (int y = 0; y < side; ++y) {
      for (int x = 0; x < side; ++x) {
        const double reach = expected / 2.0 + 0.5;
        const bool near_line =
            (std::abs(x - 40) <= reach || std::abs(x - 120) <= reach || std::abs(y - 50) <= reach || std::abs(y - 130) <= reach) &&
            x >= 40 - reach && x <= 120 + reach && y >= 50 - reach && y <= 130 + reach;
        if (!near_line && drawn(y, x)) FAIL("row " << y << " column " << x << " was drawn on");
      }
    }
  }
}

TEST_CASE("a label lies above its box, or inside where there is no room, and always within the image") {
  const Image before = noise(200, 300);
  Image after = before;
  Annotation a{1, "giraffe 0.87", {50, 80, 100, 120}, {}};
  AnnotateOptions options;
  options.boxes = false;
  annotate(after, std::span(&a, 1), options);
  int changed = 0;
  for (int y = 0; y < before.height; ++y) {
    for (int x = 0; x < before.width; ++x) {
      if (same_pixel(before, after, y, x)) continue;
      ++changed;
      REQUIRE(y < 80);
      REQUIRE(x >= 49);
    }
  }
  CHECK(changed > 100);
  a.box = {295, -4, 400, 30};  // at the upper right corner
  after = before;
  annotate(after, std::span(&a, 1), options);
  CHECK(pixel(after, 1, 299) == class_color(1));
}

TEST_CASE("drawing is the same every time, and nothing to draw changes nothing") {
  const Image before = noise(100, 140);
  Image a = before, b = before, untouched = before;
  const Annotation list[] = {disc(20, 20), disc(50, 40)};
  annotate(a, list);
  annotate(b, list);
  CHECK(a.pixels == b.pixels);
  CHECK(a.pixels != before.pixels);
  annotate(untouched, {});
  CHECK(untouched.pixels == before.pixels);
}

TEST_CASE("the first annotation ends up on top") {
  Image image = noise(100, 100);
  Annotation first{4, "", {10, 10, 50, 50}, {}}, second{5, "", {10, 10, 50, 50}, {}};
  const Annotation list[] = {first, second};
  annotate(image, list);
  CHECK(pixel(image, 10, 30) == class_color(4));
}

TEST_CASE("annotations beyond the image, broken boxes and broken text do no harm") {
  const std::string names[] = {"\xff\xfe bad", "naïve 犬", std::string(500, 'w'), "tab\tline\n"};
  for (const auto& [height, width] : {std::pair{1, 1}, {3, 200}, {50, 60}}) {
    Image image = noise(height, width);
    std::vector<Annotation> list;
    for (const std::string& name : names) {
      Annotation a = disc(-20, -30);
      a.label = name;
      list.push_back(a);
      a.box = {NAN, INFINITY, 1e20f, -5};
      a.mask.where = {width - 5, height - 5, width + 35, height + 45};
      list.push_back(a);
    }
    annotate(image, list);
    CHECK(image.height == height);
  }
}

TEST_CASE("enlarging repeats pixels, and annotations follow") {
  const Image image = noise(7, 9);
  const Image large = enlarge(image, 3);
  REQUIRE(large.height == 21);
  REQUIRE(large.width == 27);
  for (int y = 0; y < 21; ++y) {
    for (int x = 0; x < 27; ++x) REQUIRE(pixel(large, y, x) == pixel(image, y / 3, x / 3));
  }
  const Annotation a{2, "a", {1, 2, 3, 4}, {{1, 2, 4, 4}, {1, 0, 1, 0, 1, 1}}};
  const Annotation b = scaled(a, 3);
  CHECK(b.box == BoxXyxy{3, 6, 9, 12});
  CHECK(b.mask.where.x0 == 3);
  CHECK(b.mask.where.y0 == 6);
  REQUIRE(b.mask.where.width() == 9);
  REQUIRE(b.mask.where.height() == 6);
  for (int y = 0; y < 6; ++y) {
    for (int x = 0; x < 9; ++x) REQUIRE(b.mask.bytes[size_t(y * 9 + x)] == a.mask.bytes[size_t(y / 3 * 3 + x / 3)]);
  }
  CHECK(scaled(b, 1.0 / 3).mask.bytes == a.mask.bytes);
}

TEST_CASE("images side by side") {
  const Image images[] = {noise(10, 20, 1), noise(10, 20, 2), noise(6, 12, 3)};
  const Image sheet = tile_images(images, {}, 2, 1000);
  REQUIRE(sheet.width == 2 * 20 + 3 * 2);
  REQUIRE(sheet.height == 2 * 10 + 3 * 2);
  CHECK(pixel(sheet, 2, 2) == pixel(images[0], 0, 0));
  CHECK(pixel(sheet, 11, 43) == pixel(images[1], 9, 19));
  CHECK(pixel(sheet, 14 + 5, 2 + 11) == pixel(images[2], 5, 11));
  CHECK(pixel(sheet, 14 + 6, 2 + 11) == Rgb{255, 255, 255});
  const std::string captions[] = {"a.jpg", "b.jpg", "c.jpg"};
  const Image small = tile_images(images, captions, 2, 30);
  CHECK(std::max(small.width, small.height) <= 30);
  CHECK(tile_images({}, {}, 4, 100).height >= 1);

  CHECK(plan_grid(16, 160, 160, 1440).columns == 4);
  CHECK(plan_grid(16, 160, 160, 1440).scale == 2);
  CHECK(plan_grid(16, 640, 640, 1440).scale == doctest::Approx(1440.0 / 2560));
  CHECK(plan_grid(2, 64, 64, 1440).columns == 2);
  CHECK(plan_grid(3, 640, 32, 1440).columns == 3);
}
