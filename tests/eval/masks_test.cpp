#include "yolo/eval/masks.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "data/image.h"
#include "tensor/base/parallel.h"
#include "tensor/bit_rows.h"
#include "tests/support/golden.h"
#include "yolo/eval/original_ap.h"

using namespace tessera;
using tessera::testing::golden_dir;
using tessera::testing::read_json;
using tessera::testing::read_safetensors;

namespace {

struct Case {
  BatchDetections found;

  Case(int height, int width, const std::vector<BoxXyxy>& boxes) {
    std::vector<float> prototypes, coefficients;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        for (int c = 0; c < 32; ++c) prototypes.push_back(float(std::sin(0.31 * ((c * height + y) * width + x))));
      }
    }
    Detections& d = found.images.emplace_back();
    for (size_t i = 0; i < boxes.size(); ++i) {
      d.boxes.push_back(boxes[i]), d.scores.push_back(1), d.classes.push_back(0), d.anchors.push_back(0);
      for (size_t c = 0; c < 32; ++c) coefficients.push_back(float(std::sin(0.7 * double(i * 32 + c))));
    }
    found.prototypes = Tensor::from_vector(prototypes, {1, height, width, 32});
    found.coefficients = Tensor::from_vector(coefficients, {1, int64_t(boxes.size()), 32});
  }
  int64_t size() const { return found.images[0].size(); }
  const BoxXyxy& box(int64_t i) const { return found.images[0].boxes[size_t(i)]; }
};

MaskPatch patch(const BatchDetections& found, const MaskItem& item) {
  MaskPatch computed;
  for_each_mask(found, std::span(&item, 1), [&](int64_t, const MaskView& m) { computed = m.copy(); });
  return computed;
}
MaskPatch patch(const BatchDetections& found, int64_t i, int height, int width, MaskSize size) {
  return patch(found, mask_item(found, 0, i, height, width, size));
}
MaskPatch native_patch(const BatchDetections& found, int64_t i, const BoxXyxy& box, int height, int width) {
  return patch(found, native_mask_item(found, 0, i, box, height, width));
}

std::vector<uint8_t> painted(const MaskPatch& p) {
  std::vector<uint8_t> mask(size_t(p.height) * size_t(p.width), 9);
  p.view().paint(mask.data());
  return mask;
}

int64_t different(const std::vector<uint8_t>& mask, const uint8_t* expected) {
  int64_t n = 0;
  for (size_t i = 0; i < mask.size(); ++i) n += mask[i] != expected[i];
  return n;
}

}  // namespace

TEST_CASE("masks: pixel counts of the specification") {
  const Case c(16, 16, {{4, 6, 40, 50}, {10.5f, 3.2f, 63.9f, 30.7f}, {-5, 20, 20, 70}});
  const int64_t small[] = {56, 42, 29}, large[] = {1106, 793, 531}, native[] = {824, 657, 452}, other[] = {1335, 1679, 429};
  for (int64_t i = 0; i < 3; ++i) {
    CHECK(rle_area(patch(c.found, i, 64, 64, MaskSize::kPrototype).rle()) == small[i]);
    CHECK(rle_area(patch(c.found, i, 64, 64, MaskSize::kNetwork).rle()) == large[i]);
    CHECK(rle_area(patch(c.found, i, 64, 64, MaskSize::kNative).rle()) == native[i]);
    const BoxXyxy& b = c.box(i);
    const BoxXyxy wide{b.x1 * 1.5f, b.y1 * 1.5f, b.x2 * 1.5f, b.y2 * 1.5f};
    CHECK(rle_area(native_patch(c.found, i, wide, 60, 96).rle()) == other[i]);
  }
}

TEST_CASE("masks: golden pixels") {
  const auto info = read_json(golden_dir() / "masks.json");
  const auto tensors = read_safetensors(golden_dir() / "masks.safetensors");
  for (const auto& [name, entry] : info.items()) {
    const Tensor& p = tensors.at(name + ".prototypes");
    const Tensor &k = tensors.at(name + ".coefficients"), &boxes = tensors.at(name + ".boxes");
    BatchDetections found;
    found.prototypes = p.view({1, p.size(0), p.size(1), p.size(2)});
    found.coefficients = k.view({1, k.size(0), k.size(1)});
    Detections& d = found.images.emplace_back();
    for (int64_t i = 0; i < boxes.size(0); ++i) {
      const float* b = boxes.data<float>() + i * 4;
      d.boxes.push_back({b[0], b[1], b[2], b[3]});
    }
    const int height = entry.at("network")[0], width = entry.at("network")[1];
    for (int64_t i = 0; i < boxes.size(0); ++i) {
      const BoxXyxy& b = d.boxes[size_t(i)];
      const auto check = [&](const Tensor& expected, const MaskPatch& got) {
        CHECK(expected.numel() == expected.size(0) * got.height * got.width);
        // A logit within rounding of zero may fall on either side.
        CHECK(different(painted(got), expected.data<uint8_t>() + i * got.height * got.width) <= 1);
      };
      check(tensors.at(name + ".small"), patch(found, i, height, width, MaskSize::kPrototype));
      check(tensors.at(name + ".upsampled"), patch(found, i, height, width, MaskSize::kNetwork));
      for (size_t j = 0; j < entry.at("native").size(); ++j) {
        const auto& n = entry.at("native")[j];
        const float f = n.at("boxes_times");
        check(tensors.at(name + ".native." + std::to_string(j)),
              native_patch(found, i, {b.x1 * f, b.y1 * f, b.x2 * f, b.y2 * f}, n.at("size")[0], n.at("size")[1]));
      }
    }
  }
}

TEST_CASE("masks: all detections at once, any number of threads") {
  std::vector<BoxXyxy> boxes{{4, 6, 40, 50},         {10.5f, 3.2f, 63.9f, 30.7f}, {-5, 20, 20, 70}, {30, 30, 30.2f, 30.3f},
                             {200, 200, 300, 300}, {50, 5, 40, 60}};
  for (int i = 0; i < 60; ++i) boxes.push_back({float(i), float(i % 7), float(96 - i % 11), float(64 - i % 5)});  // several groups
  const Case c(16, 24, boxes);
  for (MaskSize size : {MaskSize::kPrototype, MaskSize::kNetwork, MaskSize::kNative}) {
    std::vector<MaskItem> items;
    for (int64_t i = 0; i < c.size(); ++i) items.push_back(mask_item(c.found, 0, i, 64, 96, size));
    for (const int threads : {1, 3}) {
      set_compute_threads(threads);
      std::vector<Rle> masks(items.size());
      for_each_mask(c.found, items, [&](int64_t i, const MaskView& m) { masks[size_t(i)] = m.rle(); });
      for (int64_t i = 0; i < c.size(); ++i) {
        const MaskPatch alone = patch(c.found, i, 64, 96, size);
        CHECK(masks[size_t(i)] == alone.rle());
        CHECK(alone.view().any() == (rle_area(masks[size_t(i)]) > 0));
      }
      CHECK(rle_area(masks[4]) == 0);  // outside
      CHECK(rle_area(masks[5]) == 0);  // inside out
    }
  }
}

TEST_CASE("masks: truth at the size of the prediction") {
  const int h = 10, w = 12;
  std::vector<int32_t> index(size_t(h * w)), planes(size_t(3 * h * w));
  std::mt19937 rng(2);
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x) {
      const int32_t v = (y / 3 + x / 4) % 3 == 2 && rng() % 5 ? 1 : x > 6 && y > 4 ? 2 : 0;  // label 3 is hidden
      index[size_t(y * w + x)] = v;
      if (v > 0) planes[size_t((v - 1) * h * w + y * w + x)] = 1;
    }
  }
  for (const auto& [th, tw] : {std::pair{h, w}, {40, 48}, {20, 36}, {25, 31}}) {
    const RunList a = label_masks(index.data(), LabelMasks::kOverlap, 3, h, w, th, tw);
    const RunList b = label_masks(planes.data(), LabelMasks::kSeparate, 3, h, w, th, tw);
    CHECK(a.area(2) == 0);
    for (int64_t j = 0; j < 3; ++j) {
      std::vector<uint8_t> mask(size_t(th * tw));
      for (int y = 0; y < th; ++y) {
        for (int x = 0; x < tw; ++x) {  // the definition of spec 14.3
          const auto tap = [](int o, int in, int out) {
            const float at = std::max((float(in) / float(out)) * (float(o) + 0.5f) - 0.5f, 0.0f);
            return std::pair{int(at), at - float(int(at))};
          };
          const auto [y0, fy] = tap(y, h, th);
          const auto [x0, fx] = tap(x, w, tw);
          const auto at = [&](int yy, int xx) {
            return float(index[size_t(std::min(yy, h - 1) * w + std::min(xx, w - 1))] == j + 1);
          };
          const float v =
              (1 - fy) * ((1 - fx) * at(y0, x0) + fx * at(y0, x0 + 1)) + fy * ((1 - fx) * at(y0 + 1, x0) + fx * at(y0 + 1, x0 + 1));
          mask[size_t(y * tw + x)] = v > 0.5f;
        }
      }
      RunList expected;
      expected.push(rle_encode(mask.data(), th, tw));
      const std::vector<uint32_t> want(expected.bounds(0).begin(), expected.bounds(0).end());
      CHECK(std::vector(a.bounds(j).begin(), a.bounds(j).end()) == want);
      CHECK(std::vector(b.bounds(j).begin(), b.bounds(j).end()) == want);
    }
    const auto iou = mask_iou(a, b);
    CHECK(iou[0] == doctest::Approx(1));
    CHECK(iou[1] < 1);
  }
}

TEST_CASE("masks: JSON masks are the 8-bit resize of the native ones") {
  const Case c(16, 24, {{4, 6, 40, 50}, {10.5f, 3.2f, 93.9f, 30.7f}, {-5, 20, 20, 70}, {0, 0, 96, 64}, {40, 20, 44, 60}});
  for (const auto& [oh, ow, left, top] : {std::tuple{64, 96, 0, 0},
                                          {111, 173, 3, 5},
                                          {48, 80, 8, 8},
                                          {24, 40, 8, 8},
                                          {29, 33, 2, 9},
                                          {200, 300, 0, 0},
                                          {27, 44, 4, 5}}) {
    ResultGeometry g{64, 96, oh, ow, true, 1.0, left, top};
    const JsonMask encode(g);
    for (int64_t i = 0; i < c.size(); ++i) {
      const MaskPatch native = patch(c.found, i, 64, 96, MaskSize::kNative);
      const auto full = painted(native);
      const int h = 64 - 2 * top, w = 96 - 2 * left;
      std::vector<uint8_t> inner, expected(size_t(oh * ow));
      for (int y = top; y < top + h; ++y) inner.insert(inner.end(), full.begin() + y * 96 + left, full.begin() + y * 96 + left + w);
      resize_bilinear(inner.data(), h, w, expected.data(), oh, ow, 1);
      CHECK(encode(native) == rle_encode(expected.data(), oh, ow));
    }
  }
}

TEST_CASE("masks: contours with even areas between them are resized as images") {
  // A disc, a ring, all and all but a pixel, in frames that are longer than a word of bits.
  constexpr int kHeight = 90, kWidth = 146;
  const auto is_set = [](int kind, int y, int x) {
    const int d = (y - 40) * (y - 40) + (x - 70) * (x - 70);
    return kind == 0 ? d < 1400 : kind == 1 ? d < 1500 && d > 200 : kind == 2 || y != 50 || x != 64;
  };
  for (const PixelBox where : {PixelBox{0, 0, kWidth, kHeight}, PixelBox{5, 3, 140, 81}, PixelBox{33, 20, 65, 60}}) {
    for (int kind = 0; kind < 4; ++kind) {
      MaskPatch in{kHeight, kWidth, where, {}};
      const int columns = where.x1 - where.x0;
      in.words.resize(size_t(words_of_row(columns) * (where.y1 - where.y0)));
      std::vector<uint8_t> line(size_t(columns), 0);
      for (int y = where.y0; y < where.y1; ++y) {
        for (int x = where.x0; x < where.x1; ++x) line[size_t(x - where.x0)] = is_set(kind, y, x);
        pack_bits(line.data(), columns, in.words.data() + (y - where.y0) * words_of_row(columns));
      }
      const auto full = painted(in);
      for (const auto& [oh, ow] : {std::pair{113, 183}, {45, 73}, {91, 145}, {400, 651}, {31, 40}, {90, 200}, {20, 146}}) {
        std::vector<uint8_t> expected(size_t(oh * ow));
        resize_bilinear(full.data(), kHeight, kWidth, expected.data(), oh, ow, 1);
        CHECK(to_original(in, {0, 0, kWidth, kHeight}, oh, ow).rle() == rle_encode(expected.data(), oh, ow));
      }
    }
  }
}

TEST_CASE("masks: random bits are resized as images, whatever the scale") {
  std::mt19937 rng(11);
  constexpr int kHeight = 60, kWidth = 150;
  for (const PixelBox where : {PixelBox{0, 0, kWidth, kHeight}, PixelBox{7, 3, 8, 59}, PixelBox{20, 10, 52, 11},
                               PixelBox{70, 0, 135, 40}, PixelBox{149, 59, kWidth, kHeight}}) {
    const int columns = where.x1 - where.x0, rows = where.y1 - where.y0;
    for (const unsigned one_in : {0u, 1u, 2u, 9u}) {
      MaskPatch in{kHeight, kWidth, where, {}};
      in.words.resize(size_t(words_of_row(columns) * rows));
      std::vector<uint8_t> line(static_cast<size_t>(columns));
      for (int y = 0; y < rows; ++y) {
        if (y % 3 != 1) {  // some rows are like the one above
          for (uint8_t& pixel : line) pixel = one_in != 0 && rng() % one_in == 0;
        }
        pack_bits(line.data(), columns, in.words.data() + y * words_of_row(columns));
      }
      const auto full = painted(in);
      // Half, less than half, a little less, more in one direction alone, one column, several times as much.
      for (const auto& [oh, ow] : {std::pair{30, 75}, {21, 40}, {30, 74}, {47, 117}, {90, 110}, {60, 1}, {211, 467}}) {
        std::vector<uint8_t> expected(size_t(oh * ow));
        resize_bilinear(full.data(), kHeight, kWidth, expected.data(), oh, ow, 1);
        CAPTURE(columns);
        CAPTURE(one_in);
        CAPTURE(oh);
        CAPTURE(ow);
        const MaskPatch got = to_original(in, {0, 0, kWidth, kHeight}, oh, ow);
        CHECK(painted(got) == expected);
        CHECK(got.rle() == rle_encode(expected.data(), oh, ow));
      }
    }
  }
}

TEST_CASE("masks: boxes of the JSON file, polygons") {
  const BoxLtwh b = to_ltwh({10, 20, 30.5f, 60});
  CHECK(b == BoxLtwh{10, 20, 20.5, 40});
  const MaskPatch square{20, 30, {5, 4, 9, 7}, {0b1111, 0b1111, 0b1111}};
  const auto rings = mask_rings(square);
  REQUIRE(rings.size() == 1);
  CHECK(rings[0] == Polygon{{5, 4}, {5, 6}, {8, 6}, {8, 4}});
  CHECK(mask_polygon(square) == rings[0]);
  CHECK(mask_polygon({20, 30, {}, {}}).empty());
  Polygon p{{0, 0}, {5, 4}, {29, 19}};
  scale_polygon(p, 20, 30, 40, 50);  // gain 0.5, padding 2.5 left and right
  CHECK(p == Polygon{{0, 0}, {5, 8}, {50, 38}});
}
