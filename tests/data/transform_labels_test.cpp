// Labels go where their pixels go, through everything that the data set does to an image; and which labels the transforms keep.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "data/dataset.h"
#include "data/polygon.h"
#include "data/transforms/affine.h"
#include "data/transforms/copy_paste.h"
#include "data/transforms/letterbox.h"
#include "data/transforms/mosaic.h"
#include "tests/data/support.h"

using namespace tessera;
using namespace tessera::test;
namespace fs = std::filesystem;

namespace {

struct Rectangle {
  int class_id, x0, y0, x1, y1;
};

// The outline in `points` points, a multiple of four.
std::string label_line(const Rectangle& r, int height, int width, int points = 4) {
  const std::array<double, 5> x = {double(r.x0), double(r.x1), double(r.x1), double(r.x0), double(r.x0)};
  const std::array<double, 5> y = {double(r.y0), double(r.y0), double(r.y1), double(r.y1), double(r.y0)};
  std::string line = std::to_string(r.class_id);
  for (int i = 0; i < points; ++i) {
    const size_t side = size_t(4 * i / points);
    const double t = 4.0 * i / points - double(side);
    line +=
        fmt::format(" {} {}", (x[side] + t * (x[side + 1] - x[side])) / width, (y[side] + t * (y[side + 1] - y[side])) / height);
  }
  return line + "\n";
}

// Images of several shapes, each with an object of every class, whose pixels are red, green or blue as the class is 0, 1 or 2. The
// small one, which is told first, lies on a large one; one has a much finer outline than the others.
class ColouredSet {
 public:
  ColouredSet() {
    fs::create_directories(folder_.path() / "images");
    const std::array<Size, 5> sizes = {{{48, 96}, {96, 48}, {96, 96}, {40, 72}, {80, 60}}};
    for (size_t k = 0; k < sizes.size(); ++k) {
      const auto [h, w] = sizes[k];
      const int c = int(k) % 3;
      const Rectangle large{c, 2, 4, w / 2, h - 6}, other{(c + 1) % 3, w / 2 + 4, 3, w - 4, h / 3};
      const Rectangle small{(c + 2) % 3, w / 8, h / 2, w / 4 + 4, h / 2 + 14};
      Image image(h, w);
      std::fill(image.pixels.begin(), image.pixels.end(), uint8_t(60));
      for (const Rectangle& r : {large, other, small})
        for (int y = r.y0; y < r.y1; ++y)
          for (int x = r.x0; x < r.x1; ++x)
            for (int channel = 0; channel < 3; ++channel) image.row(y)[3 * x + channel] = channel == r.class_id ? 250 : 10;
      write_png(folder_.path() / "images" / fmt::format("{}.png", k), image);
      folder_.write(fmt::format("labels/{}.txt", k),
                    label_line(small, h, w) + label_line(other, h, w, k == 1 ? 2000 : 4) + label_line(large, h, w));
    }
    yaml_ = folder_.write("data.yaml", "train: images\nval: images\nnames: [red, green, blue]\n").string();
  }
  std::unique_ptr<SegDataset> open(const DatasetConfig& config) const { return open_dataset(yaml_, config.train ? "train" : "val", config); }

 private:
  TempFolder folder_;
  std::string yaml_;
};

// The class whose colour a pixel has, or -1.
int class_of(const uint8_t* pixel) {
  for (int c = 0; c < 3; ++c)
    if (pixel[c] > 160 && pixel[(c + 1) % 3] < 60 && pixel[(c + 2) % 3] < 60) return c;
  return -1;
}

// With masks in the size of the image. Where two colours meet, a pixel may be the one or the other: a few are let go.
void check_labels(const Sample& s) {
  REQUIRE(s.mask_width == s.width);
  int64_t wrong = 0, covered = 0, coloured = 0, missed = 0;
  std::vector<PixelBox> cells(s.targets.size(), PixelBox{s.width, s.height, 0, 0});
  for (int y = 0; y < s.height; ++y) {
    for (int x = 0; x < s.width; ++x) {
      const size_t at = size_t(y) * size_t(s.width) + size_t(x);
      const int32_t id = s.masks[at];
      const int seen = class_of(s.pixels.data() + 3 * at);
      coloured += seen >= 0;
      missed += seen >= 0 && id == 0;
      if (id == 0) continue;
      REQUIRE(size_t(id) <= s.targets.size());
      ++covered;
      wrong += seen >= 0 && seen != s.targets[size_t(id - 1)].class_id;
      PixelBox& b = cells[size_t(id - 1)];
      b = {std::min(b.x0, x), std::min(b.y0, y), std::max(b.x1, x + 1), std::max(b.y1, y + 1)};
    }
  }
  CHECK(double(wrong) <= 0.04 * double(covered));
  CHECK(double(missed) <= 0.06 * double(coloured));
  for (size_t j = 0; j < cells.size(); ++j) {
    if (cells[j].empty()) continue;
    const std::array<float, 4>& b = s.targets[j].box;
    const float w = float(s.width), h = float(s.height);
    CHECK(float(cells[j].x0) >= (b[0] - b[2] / 2) * w - 1.5f);
    CHECK(float(cells[j].x1) <= (b[0] + b[2] / 2) * w + 1.5f);
    CHECK(float(cells[j].y0) >= (b[1] - b[3] / 2) * h - 1.5f);
    CHECK(float(cells[j].y1) <= (b[1] + b[3] / 2) * h + 1.5f);
  }
}

}  // namespace

TEST_CASE("labels lie on their pixels, whatever was done to the image") {
  DatasetConfig config;
  config.imgsz = 96;
  config.batch = 2;
  config.mask_ratio = 1;
  AugmentConfig& a = config.augment;
  a.hsv_h = a.hsv_s = a.hsv_v = 0;
  a.mosaic = a.translate = a.scale = a.fliplr = 0;
  SUBCASE("letterbox, for validation") { config.train = false; }
  SUBCASE("letterbox") {}
  SUBCASE("mirrored") { a.fliplr = 1; }
  SUBCASE("upside down") { a.flipud = 1; }
  SUBCASE("turned and moved") { a.degrees = 25, a.translate = 0.2, a.scale = 0.3; }
  SUBCASE("mosaic") { a.mosaic = 1, a.fliplr = 0.5, a.flipud = 0.5, a.translate = 0.1, a.scale = 0.3; }
  SUBCASE("mosaic, turned") { a.mosaic = 1, a.degrees = 15; }
  SUBCASE("copy-paste") { a.copy_paste = 1; }
  const ColouredSet images;
  const auto set = images.open(config);
  int64_t objects = 0;
  for (int epoch = 0; epoch < (config.train ? 6 : 1); ++epoch) {
    for (int64_t i = 0; i < set->size(); ++i) {
      CAPTURE(epoch);
      CAPTURE(i);
      const Sample s = set->get(i, epoch);
      check_labels(s);
      objects += int64_t(s.targets.size());
    }
  }
  CHECK(objects >= 15);
}

TEST_CASE("labels of a mosaic that is made row by row are those of one that is drawn") {
  DatasetConfig by_rows;
  by_rows.imgsz = 96;
  by_rows.batch = 2;
  by_rows.augment.scale = 0.5;
  DatasetConfig drawn = by_rows;
  drawn.augment.copy_paste = 1e-9;  // of no object, but it wants the canvas
  const ColouredSet images;
  const auto a = images.open(by_rows), b = images.open(drawn);
  int64_t objects = 0;
  for (int epoch = 0; epoch < 20; ++epoch) {
    for (int64_t i = 0; i < a->size(); ++i) {
      const Sample x = a->get(i, epoch), y = b->get(i, epoch);
      REQUIRE(x.targets.size() == y.targets.size());
      for (size_t k = 0; k < x.targets.size(); ++k) {
        CHECK(x.targets[k].class_id == y.targets[k].class_id);
        CHECK(x.targets[k].box == y.targets[k].box);
      }
      CHECK(x.masks == y.masks);
      objects += int64_t(x.targets.size());
    }
  }
  CHECK(objects > 100);
}

namespace {

Instance rectangle(float x0, float y0, float x1, float y1) {
  return {0, {x0, y0, x1, y1}, {{x0, y0}, {x1, y0}, {x1, y1}, {x0, y1}}};
}

// How many of the instances are left in a frame of 100 x 100, moved by (dx, dy) after a change of size.
size_t kept(std::vector<Instance> instances, double scale, float dx, float dy) {
  const float s = float(scale);
  for (Instance& i : instances) i.polygon = resample(i.polygon, 1000);  // only points in the frame count
  transform_instances(instances, {s, 0, dx, 0, s, dy, 0, 0, 1}, scale, 100, 100);
  return instances.size();
}

}  // namespace

TEST_CASE("an object stays while more than 1 % of it, as large as it is now, is in the image, and it is no line") {
  // 200 x 200, of which 15 x 15 or 30 x 30 are left: 0.56 and 2.25 %.
  CHECK(kept({rectangle(0, 0, 200, 200)}, 1, 85, 85) == 0);
  CHECK(kept({rectangle(0, 0, 200, 200)}, 1, 70, 70) == 1);
  // Of half the size 100 x 100 are all of it, and 15 x 15 are 2.25 %.
  CHECK(kept({rectangle(0, 0, 200, 200)}, 0.5, 85, 85) == 1);
  CHECK(kept({rectangle(0, 0, 200, 200)}, 0.5, 92, 92) == 0);
  // Sides of 2 pixels and less, and sides that differ by a factor of 100 and more, do not stay.
  CHECK(kept({rectangle(10, 10, 13, 40), rectangle(10, 10, 12, 40)}, 1, 0, 0) == 1);
  std::vector<Instance> lines = {rectangle(0, 10, 299, 13), rectangle(0, 10, 301, 13)};
  transform_instances(lines, {1, 0, 0, 0, 1, 0, 0, 0, 1}, 1, 400, 400);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].box.x2 == 299);
}

TEST_CASE("copy-paste leaves out what would cover 30 % of an object") {
  for (const int side : {29, 31}) {
    LabeledImage target{Image(100, 100), {rectangle(0, 0, 10, 10)}};
    LabeledImage other{Image(100, 100), {rectangle(0, 0, 10, float(side) / 10)}};
    copy_paste_from(target, other, 1);
    CHECK(target.instances.size() == (side < 30 ? 2 : 1));
  }
}

TEST_CASE("polygons of a mosaic have equally many points, on the outlines that they had") {
  const Image image(50, 50);
  std::array<MosaicPart, 4> parts;
  for (MosaicPart& part : parts) part.image = &image;
  parts[0].instances = {rectangle(10, 10, 40, 40)};
  Instance finer = rectangle(10, 10, 40, 40);
  finer.polygon = {{10, 10}, {25, 10}, {40, 10}, {40, 25}, {40, 40}, {25, 40}, {10, 40}, {10, 25}};
  parts[3].instances = {finer};
  const Collage collage = mosaic_collage(parts, 50, 50, 50);
  const std::vector<Instance> joined = mosaic_instances(parts, collage);
  REQUIRE(joined.size() == 2);
  for (const Instance& i : joined) {
    REQUIRE(i.polygon.size() == 8);
    for (const Point& p : i.polygon) {
      const float left = p.x - i.box.x1, right = i.box.x2 - p.x, up = p.y - i.box.y1, down = i.box.y2 - p.y;
      const float nearest = std::min({left, right, up, down});
      CHECK(std::abs(nearest) < 3);
      CHECK(nearest > -1e-3f);
    }
  }
}

TEST_CASE("letterbox moves boxes and outlines alike") {
  std::vector<Instance> instances = {rectangle(10, 20, 30, 60)};
  const LetterboxPlan plan = plan_letterbox({100, 50}, {200, 200});
  letterbox(instances, plan);
  const Instance& i = instances[0];
  CHECK(plan.ratio == 2);
  CHECK((i.box.x1 == 70 && i.box.y1 == 40 && i.box.x2 == 110 && i.box.y2 == 120));
  CHECK((i.polygon[0].x == 70 && i.polygon[0].y == 40 && i.polygon[2].x == 110 && i.polygon[2].y == 120));
}
