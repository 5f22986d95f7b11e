// The transforms against what the original does with the same random numbers (tests/golden, made by tools/golden).
#include "tests/support/golden.h"

#include <doctest/doctest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/image_order.h"
#include "data/polygon.h"
#include "data/rasterize.h"
#include "data/transforms/affine.h"
#include "data/transforms/copy_paste.h"
#include "data/transforms/cutmix.h"
#include "data/transforms/flip.h"
#include "data/transforms/hsv.h"
#include "data/transforms/letterbox.h"
#include "data/transforms/mixup.h"
#include "data/transforms/mosaic.h"
#include "data/yolo_txt.h"
#include "tests/data/support.h"

using namespace tessera;
using namespace tessera::testing;
using nlohmann::json;

namespace {

struct Golden {
  TensorMap tensors = read_both();
  json parameters = read_json(golden_dir() / "augment.json");

  static TensorMap read_both() {
    TensorMap all = read_safetensors(golden_dir() / "augment.safetensors");
    all.merge(read_safetensors(golden_dir() / "augment_pairs.safetensors"));
    return all;
  }
  Image image(const std::string& name) const {
    const Tensor& t = tensors.at(name);
    Image out(int(t.size(0)), int(t.size(1)));
    std::memcpy(out.pixels.data(), t.raw(), out.pixels.size());
    return out;
  }
  // With red and blue exchanged: the files are BGR.
  Image rgb(const std::string& name) const {
    const Image bgr = image(name);
    Image out = bgr;
    for (size_t i = 0; i < out.pixels.size(); i += 3) std::swap(out.pixels[i], out.pixels[i + 2]);
    return out;
  }
  std::vector<Instance> instances(const std::string& prefix) const {
    const Tensor &cls = tensors.at(prefix + ".cls"), &boxes = tensors.at(prefix + ".boxes"),
                 &polygons = tensors.at(prefix + ".polygons");
    std::vector<Instance> out(size_t(cls.numel()));
    const int64_t points = polygons.rank() == 3 ? polygons.size(1) : 0;
    for (size_t i = 0; i < out.size(); ++i) {
      out[i].class_id = cls.data<int32_t>()[i];
      const float* b = boxes.data<float>() + 4 * i;
      out[i].box = {b[0], b[1], b[2], b[3]};
      const float* p = polygons.data<float>() + int64_t(i) * points * 2;
      for (int64_t k = 0; k < points; ++k) out[i].polygon.push_back({p[2 * k], p[2 * k + 1]});
    }
    return out;
  }
  LabeledImage labeled(const std::string& prefix) const { return {image(prefix + ".img"), instances(prefix)}; }
};

const Golden& golden() {
  static const Golden g;
  return g;
}

void check_instances(const std::vector<Instance>& got, const std::vector<Instance>& expected, float tolerance = 1e-3f) {
  REQUIRE(got.size() == expected.size());
  const auto near = [&](float a, float b) { return std::abs(a - b) <= tolerance; };
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i].class_id == expected[i].class_id);
    const BoxXyxy &a = got[i].box, &b = expected[i].box;
    CHECK((near(a.x1, b.x1) && near(a.y1, b.y1) && near(a.x2, b.x2) && near(a.y2, b.y2)));
    REQUIRE(got[i].polygon.size() == expected[i].polygon.size());
    for (size_t k = 0; k < got[i].polygon.size(); ++k)
      REQUIRE((near(got[i].polygon[k].x, expected[i].polygon[k].x) && near(got[i].polygon[k].y, expected[i].polygon[k].y)));
  }
}

// Share of values that differ; the largest difference must not exceed 1.
double differing(const Image& a, const Image& b) {
  REQUIRE(a.height == b.height);
  REQUIRE(a.width == b.width);
  int64_t count = 0;
  int worst = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const int d = std::abs(int(a.pixels[i]) - int(b.pixels[i]));
    count += d != 0;
    worst = std::max(worst, d);
  }
  CHECK(worst <= 1);
  return double(count) / double(a.pixels.size());
}

double draw_of(const json& draws, size_t i) { return draws.at(i).back().get<double>(); }

AffineDraw affine_draw(const json& d) {
  return {draw_of(d, 0), draw_of(d, 1), draw_of(d, 2), draw_of(d, 3), draw_of(d, 4), draw_of(d, 5), draw_of(d, 6), draw_of(d, 7)};
}

}  // namespace

TEST_CASE("golden order of images and buffer for mosaics") {
  const json all = read_json(golden_dir() / "image_order.json");
  REQUIRE(!all.at("orders").empty());
  REQUIRE(!all.at("buffers").empty());
  using List = std::vector<int64_t>;
  for (const json& c : all.at("orders")) {
    CAPTURE(c.dump());
    for (int epoch = 0; epoch < 4; ++epoch) CHECK(original_order(c["n"], c["batch"], epoch, c["reset"]) == c["orders"][size_t(epoch)].get<List>());
  }
  for (const json& c : all.at("buffers")) {
    CAPTURE(c.dump());
    const int64_t n = c["n"], batch = c["batch"];
    List held;
    for (int epoch = 0; epoch < 4; ++epoch) {
      const List order = original_order(n, batch, epoch, -1);
      const MosaicBuffer buffer = roll_buffer(order, held, batch);
      const auto end = buffer.held_at_end();
      held.assign(end.begin(), end.end());
      CHECK(held == c["buffers"][size_t(epoch)].get<List>());
      for (int64_t i = 0; i < n; ++i) CHECK(std::ranges::count(buffer.held(i), order[size_t(i)]) == 1);  // the one being made is there
    }
  }
}

TEST_CASE("golden letterbox and data set sizes") {
  const json all = read_json(golden_dir() / "letterbox.json");
  for (const json& r : all.at("letterbox")) {
    CAPTURE(r.dump());
    LetterboxOptions options;
    options.auto_shape = r[4];
    options.scaleup = r[5];
    const LetterboxPlan p = plan_letterbox({r[1], r[0]}, {r[2], r[3]}, options);
    CHECK(p.height() == r[6].get<int>());
    CHECK(p.width() == r[7].get<int>());
    CHECK(p.top == r[8].get<int>());
    CHECK(p.bottom == r[9].get<int>());
    CHECK(p.left == r[10].get<int>());
    CHECK(p.right == r[11].get<int>());
  }
  for (const json& r : all.at("dataset")) {
    CAPTURE(r.dump());
    const Size image{r[1], r[0]};
    const int imgsz = r[2];
    const Size resized = dataset_size({image.height, image.width}, {imgsz, imgsz});
    // Columns 3 and 4 repeat the batch shape: the original overwrites its record. The ratios below pin the resize.
    const RectBatches rect = rect_batches(std::span(&image, 1), 1, imgsz);
    CHECK(rect.shapes[0] == Size{r[5], r[6]});
    LetterboxOptions options;
    options.scaleup = false;
    const LetterboxPlan p = plan_letterbox(resized, rect.shapes[0], options);
    CHECK(p.left == r[7].get<int>());
    CHECK(p.top == r[8].get<int>());
    CHECK(double(resized.height) / image.height == r[9].get<double>());
    CHECK(double(resized.width) / image.width == r[10].get<double>());
  }
}

TEST_CASE("golden rectangular batches: shapes, and the order of images with equal ones in theirs") {
  int moved = 0;
  for (const json& c : read_json(golden_dir() / "rect_batches.json")) {
    CAPTURE(c.dump());
    std::vector<Size> sizes;
    for (const json& s : c.at("sizes")) sizes.push_back({s[0], s[1]});
    const RectBatches rect = rect_batches(sizes, c.at("batch"), c.at("imgsz"));
    CHECK(rect.order == c.at("order").get<std::vector<int64_t>>());
    REQUIRE(rect.shapes.size() == c.at("shapes").size());
    for (size_t b = 0; b < rect.shapes.size(); ++b) CHECK(rect.shapes[b] == Size{c["shapes"][b][0], c["shapes"][b][1]});
    moved += c.at("moved").get<int>();
  }
  CHECK(moved > 0);  // else no case tells a stable order from another
}

TEST_CASE("golden resize and letterbox pixels") {
  const Golden& g = golden();
  size_t k = 0;
  for (const json& r : g.parameters.at("resize")) {
    CAPTURE(k);
    const int c = r.at("channels");
    const Tensor &x = g.tensors.at(fmt::format("resize.{}.x", k)), &y = g.tensors.at(fmt::format("resize.{}.y", k));
    std::vector<uint8_t> out(size_t(y.numel()));
    resize_bilinear(x.data<uint8_t>(), r["from"][0], r["from"][1], out.data(), r["to"][0], r["to"][1], c);
    CHECK(std::memcmp(out.data(), y.raw(), out.size()) == 0);
    ++k;
  }
  k = 0;
  for (const json& r : g.parameters.at("letterbox")) {
    CAPTURE(k);
    const Image x = g.image(fmt::format("letterbox.{}.x", k)), y = g.image(fmt::format("letterbox.{}.y", k));
    LetterboxOptions options;
    options.auto_shape = r["auto"];
    options.scaleup = r["scaleup"];
    const Image out = letterbox(x, plan_letterbox({x.height, x.width}, {r["target"][0], r["target"][1]}, options));
    CHECK(out.height == y.height);
    CHECK(out.pixels == y.pixels);
    ++k;
  }
}

TEST_CASE("golden HSV") {
  const Golden& g = golden();
  const Image rgb = g.rgb("hsv_forward.bgr"), hsv = g.image("hsv_forward.hsv");
  for (size_t i = 0; i < rgb.pixels.size(); i += 3) {
    const std::array<uint8_t, 3> out = rgb_to_hsv(rgb.pixels[i], rgb.pixels[i + 1], rgb.pixels[i + 2]);
    REQUIRE(std::memcmp(out.data(), &hsv.pixels[i], 3) == 0);
  }
  for (size_t k = 0; k < g.parameters.at("hsv").size(); ++k) {
    CAPTURE(k);
    const json& p = g.parameters["hsv"][k];
    Image x = g.rgb(fmt::format("hsv.{}.x", k));
    augment_hsv(x, {draw_of(p["draws"], 0) * p["gains"][0].get<double>(), draw_of(p["draws"], 1) * p["gains"][1].get<double>(),
                    draw_of(p["draws"], 2) * p["gains"][2].get<double>()});
    // OpenCV rounds where its vectors end (width mod 32 with the build that made the file, at other places elsewhere) and truncates
    // before: there all but a few values in 100,000 are equal.
    const Image y = g.rgb(fmt::format("hsv.{}.y", k));
    differing(x, y);
    int64_t different = 0;
    const size_t whole = size_t(x.width / 32 * 32) * 3;
    for (int row = 0; row < x.height; ++row)
      for (size_t i = 0; i < whole; ++i) different += x.row(row)[i] != y.row(row)[i];
    CHECK(different <= int64_t(whole) * x.height / 2000);
  }
}

TEST_CASE("HSV: every length, and mirrored, as pixel by pixel") {
  const HsvChange change({0.01, -0.4, 0.3});
  const Image all = test::noise_image(1, 700);
  std::vector<uint8_t> single(2100), out(2100), mirrored(2100);
  for (int x = 0; x < 700; ++x) change.apply(all.row(0) + 3 * x, 1, false, &single[size_t(3 * x)]);
  for (int n = 1; n <= 700; n += n < 140 ? 1 : 37) {
    change.apply(all.row(0), n, false, out.data());
    change.apply(all.row(0), n, true, mirrored.data());
    REQUIRE(std::equal(out.begin(), out.begin() + 3 * n, single.begin()));
    for (int x = 0; x < n; ++x) REQUIRE(std::memcmp(&mirrored[size_t(3 * (n - 1 - x))], &single[size_t(3 * x)], 3) == 0);
  }
}

TEST_CASE("change of colours: every kernel gives the same bytes") {
  std::vector<uint8_t> rgb(3 * 40000);
  Rng rng(3, RngPurpose::kTest, 1);
  for (uint8_t& v : rgb) v = uint8_t(rng.below(256));
  const int64_t targets = hwy::SupportedTargets();
  for (const HsvDraw& draw : {HsvDraw{0, 0, 0}, HsvDraw{0.015, 0.7, 0.4}, HsvDraw{-0.01, -0.6, -0.3}, HsvDraw{0.5, 1, 1}, HsvDraw{-1, -1, 0.1}})
    for (const bool mirror : {false, true})
      for (const int64_t pixels : {int64_t(1), int64_t(63), int64_t(64), int64_t(1000), int64_t(40000)}) {
        const HsvChange change(draw);
        std::vector<uint8_t> first;
        for (int64_t left = targets; left != 0; left &= left - 1) {  // one target after the other
          hwy::SetSupportedTargetsForTest(left & -left);
          std::vector<uint8_t> out(size_t(pixels) * 3 + 1, 77);
          change.apply(rgb.data(), pixels, mirror, out.data());
          CHECK(out.back() == 77);
          if (first.empty()) first = out;
          CHECK(out == first);
        }
        hwy::SetSupportedTargetsForTest(0);
      }
}

TEST_CASE("golden flips") {
  const Golden& g = golden();
  for (const bool horizontal : {true, false}) {
    const std::string name = horizontal ? "flip_horizontal" : "flip_vertical";
    LabeledImage in = g.labeled(name + ".in");
    const LabeledImage out = g.labeled(name + ".out");
    if (horizontal)
      flip_horizontal(in.instances, in.image.width);
    else
      flip_vertical(in.instances, in.image.height);
    check_instances(in.instances, out.instances);
  }
}

TEST_CASE("golden affine and perspective") {
  const Golden& g = golden();
  for (size_t k = 0; k < g.parameters.at("warp").size(); ++k) {
    CAPTURE(k);
    const json& p = g.parameters["warp"][k];
    LabeledImage in = g.labeled(fmt::format("warp.{}.in", k));
    const LabeledImage expected = g.labeled(fmt::format("warp.{}.out", k));
    const AffineDraw draw = affine_draw(p["draws"]);
    const Matrix3 m = affine_matrix(draw, in.image.height, in.image.width, expected.image.height, expected.image.width);
    Image out;
    warp(in.image, m, p["perspective"].get<double>() != 0, expected.image.height, expected.image.width, out);
    CHECK(differing(out, expected.image) < 0.01);
    transform_instances(in.instances, m, draw.scale, out.height, out.width);
    check_instances(in.instances, expected.instances);
  }
}

TEST_CASE("warp by rows: every kernel gives the image that pixel by pixel gives") {
  // Sides that fill no vector, parts that overlap the canvas, and columns and rows between them that are border.
  const Image a = test::noise_image(61, 83), b = test::noise_image(70, 3), c = test::noise_image(40, 55),
              d = test::noise_image(55, 60);
  Collage collage;
  collage.height = collage.width = 128;
  collage.add(a, 60 - a.width, 59 - a.height);
  collage.add(b, 61, -3);
  collage.add(c, 4, 70);
  collage.add(d, 90, 80);
  Image canvas(128, 128);
  collage.draw({0, 0, 128, 128}, canvas);
  const int64_t targets = hwy::SupportedTargets();
  for (const float scale : {0.3f, 0.45f, 0.75f, 1.0f, 1.37f, 3.0f})
    for (const float shift : {-40.25f, 0.0f, 13.7f}) {
      CAPTURE(scale);
      CAPTURE(shift);
      const Matrix3 m = {scale, 0, shift, 0, scale * 0.9f, -shift / 2, 0, 0, 1};
      const Matrix3 inverse = inverse_map(m, false);
      Image expected(96, 101);
      for (int y = 0; y < 96; ++y)
        for (int x = 0; x < 101; ++x) {
          const float sx = inverse[0] * float(x) + inverse[2], sy = inverse[4] * float(y) + inverse[5];
          const float left = std::floor(sx), top = std::floor(sy);
          for (int channel = 0; channel < 3; ++channel) {
            const auto tap = [&](float tx, float ty) {
              return tx < 0 || ty < 0 || tx > 127 || ty > 127 ? float(kBorderValue)
                                                              : float(canvas.row(int(ty))[3 * int(tx) + channel]);
            };
            const auto column = [&](float tx) { return tap(tx, top) + (sy - top) * (tap(tx, top + 1) - tap(tx, top)); };
            expected.row(y)[3 * x + channel] = uint8_t(std::lrint(column(left) + (sx - left) * (column(left + 1) - column(left))));
          }
        }
      for (int64_t left = targets; left != 0; left &= left - 1) {
        hwy::SetSupportedTargetsForTest(left & -left);
        Image out(96, 101);
        ImageRows rows(out);
        warp_rows(collage, m, 96, 101, rows);
        CHECK(out.pixels == expected.pixels);
      }
      hwy::SetSupportedTargetsForTest(0);
    }
}

TEST_CASE("golden mosaic, canvas and result") {
  const Golden& g = golden();
  for (size_t k = 0; k < g.parameters.at("mosaic").size(); ++k) {
    CAPTURE(k);
    const json& p = g.parameters["mosaic"][k];
    std::vector<int> members = {p["first"].get<int>()};
    for (const json& i : p["draws"][1][3]) members.push_back(p["buffer"][i.get<size_t>()].get<int>());
    const int yc = int(draw_of(p["draws"], 2)), xc = int(draw_of(p["draws"], 3));
    std::vector<LabeledImage> scenes;
    for (const int i : members) scenes.push_back(g.labeled(fmt::format("mosaic.scene{}", i)));
    std::array<MosaicPart, 4> parts;
    for (size_t i = 0; i < 4; ++i) parts[i] = {&scenes[i].image, scenes[i].instances};
    LabeledImage canvas;
    const Collage collage = mosaic_collage(parts, 64, xc, yc);
    collage.draw({0, 0, 128, 128}, canvas.image);
    canvas.instances = mosaic_instances(parts, collage);
    const LabeledImage expected = g.labeled(fmt::format("mosaic.{}.canvas", k));
    CHECK(canvas.image.pixels == expected.image.pixels);
    check_instances(canvas.instances, expected.instances);

    const AffineDraw draw = affine_draw(p["warp_draws"]);
    const Matrix3 m = affine_matrix(draw, 128, 128, 64, 64);
    Image out;
    warp(canvas.image, m, false, 64, 64, out);
    const LabeledImage final = g.labeled(fmt::format("mosaic.{}.out", k));
    // A canvas of which only the footprint is written, and none at all, give the same image.
    Image part(128, 128), from_part, from_rows(64, 64);
    std::fill(part.pixels.begin(), part.pixels.end(), uint8_t(0));
    collage.draw(warp_footprint(m, 128, 128, 64, 64), part);
    warp(part, m, false, 64, 64, from_part);
    CHECK(from_part.pixels == out.pixels);
    ImageRows rows(from_rows);
    warp_rows(collage, m, 64, 64, rows);
    CHECK(from_rows.pixels == out.pixels);
    CHECK(differing(out, final.image) < 0.01);
    transform_instances(canvas.instances, m, draw.scale, 64, 64);
    check_instances(canvas.instances, final.instances);
  }
}

TEST_CASE("golden copy-paste and mixup") {
  const Golden& g = golden();
  for (size_t k = 0; k < g.parameters.at("copy_paste").size(); ++k) {
    CAPTURE(k);
    LabeledImage in = g.labeled("copy_paste.in");
    const LabeledImage expected = g.labeled(fmt::format("copy_paste.{}.out", k));
    copy_paste_flip(in, g.parameters["copy_paste"][k]["p"]);
    CHECK(in.image.pixels == expected.image.pixels);
    check_instances(in.instances, expected.instances);
  }
  LabeledImage in = g.labeled("mixup.in");
  const LabeledImage expected = g.labeled("mixup.out");
  const json& draws = g.parameters["mixup"]["draws"];
  LabeledImage partner = g.labeled(fmt::format("mosaic.scene{}", int(draw_of(draws, 1))));
  const LetterboxPlan plan = plan_letterbox({partner.image.height, partner.image.width}, {64, 64});
  partner.image = letterbox(partner.image, plan);
  letterbox(partner.instances, plan);
  const std::vector<Instance> partner_instances = partner.instances;
  mixup(in, std::move(partner), draw_of(draws, 2));
  CHECK(in.image.pixels == expected.image.pixels);
  // The file holds the partner's coordinates in another unit; their classes count.
  const auto own = std::ptrdiff_t(expected.instances.size() - partner_instances.size());
  check_instances({in.instances.begin(), in.instances.begin() + own},
                  {expected.instances.begin(), expected.instances.begin() + own});
  for (size_t i = 0; i < in.instances.size(); ++i) CHECK(in.instances[i].class_id == expected.instances[i].class_id);
}

TEST_CASE("golden pasting from another image and cutmix") {
  const Golden& g = golden();
  for (size_t k = 0; k < g.parameters.at("paste").size(); ++k) {
    CAPTURE(k);
    LabeledImage in = g.labeled("paste.in");
    const LabeledImage expected = g.labeled(fmt::format("paste.{}.out", k));
    copy_paste_from(in, g.labeled("paste.partner"), g.parameters["paste"][k]["p"]);
    CHECK(in.image.pixels == expected.image.pixels);
    check_instances(in.instances, expected.instances);
  }
  int changed = 0, alone = 0;
  for (size_t k = 0; k < g.parameters.at("cutmix").size(); ++k) {
    CAPTURE(k);
    const json& p = g.parameters["cutmix"][k];
    // After the test of p and the partner's index: three of (lambda, x, y), then the area, where one is free.
    const json& draws = p["draws"];
    CutmixDraw draw;
    for (size_t j = 0; j < 3; ++j) {
      const auto at = [&](size_t i) { return draws[2 + 3 * j + i].back(); };
      draw.areas[j] = cutmix_area(at(0).get<double>(), at(1).get<int>(), at(2).get<int>(), 64, 64);
    }
    if (draws.size() > 11) {
      const auto free = draws[11][1].get<std::vector<int>>();
      const auto place = std::find(free.begin(), free.end(), draws[11][2].get<int>()) - free.begin();
      draw.choice = (double(place) + 0.5) / double(free.size());
    }
    LabeledImage in = g.labeled(fmt::format("cutmix.in{}", p["objects"].get<int>()));
    const LabeledImage before = in, expected = g.labeled(fmt::format("cutmix.{}.out", k));
    cutmix(in, g.labeled("cutmix.partner"), draw);
    CHECK(in.image.pixels == expected.image.pixels);
    check_instances(in.instances, expected.instances);
    ++(in.image.pixels == before.image.pixels ? alone : changed);
  }
  CHECK(changed >= 6);
  CHECK(alone >= 1);
}

TEST_CASE("golden rasters and overlap maps") {
  const Golden& g = golden();
  const auto polygon_of = [](const json& j) {
    Polygon p;
    for (const json& v : j) p.push_back({v[0].get<float>(), v[1].get<float>()});
    return p;
  };
  for (size_t k = 0; k < g.parameters.at("raster").size(); ++k)
    for (const int ratio : {1, 2, 4}) {
      CAPTURE(k);
      CAPTURE(ratio);
      std::vector<Instance> one(1);
      one[0].polygon = polygon_of(g.parameters["raster"][k]["polygon"]);
      const Tensor& expected = g.tensors.at(fmt::format("raster.{}.r{}", k, ratio));
      const MaskTargets m = separate_masks(one, 16, 24, ratio);
      REQUIRE(int64_t(m.values.size()) == expected.numel());
      for (size_t i = 0; i < m.values.size(); ++i) REQUIRE(m.values[i] == expected.data<uint8_t>()[i]);
    }
  for (size_t k = 0; k < g.parameters.at("overlap").size(); ++k) {
    CAPTURE(k);
    const json& p = g.parameters["overlap"][k];
    std::vector<Instance> all(p["polygons"].size());
    for (size_t i = 0; i < all.size(); ++i) all[i].polygon = polygon_of(p["polygons"][i]);
    const MaskTargets m = overlap_masks(all, p["h"], p["w"], p["ratio"]);
    CHECK(m.order == p["order"].get<std::vector<int64_t>>());
    const Tensor map = g.tensors.at(fmt::format("overlap.{}.map", k)).to(DType::kI32);
    REQUIRE(int64_t(m.values.size()) == map.numel());
    CHECK(std::memcmp(m.values.data(), map.raw(), m.values.size() * 4) == 0);
  }
}

TEST_CASE("golden polygons: resampling, contours, merged parts") {
  const json all = read_json(golden_dir() / "polygons.json");
  const auto polygon_of = [](const json& j) {
    Polygon p;
    for (const json& v : j) p.push_back({v[0].get<float>(), v[1].get<float>()});
    return p;
  };
  const auto check_points = [](const Polygon& got, const Polygon& expected) {
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i].x == doctest::Approx(expected[i].x).epsilon(1e-5));
      CHECK(got[i].y == doctest::Approx(expected[i].y).epsilon(1e-5));
    }
  };
  for (const json& r : all.at("resample")) {
    CAPTURE(r["n"].get<int>());
    check_points(resample(polygon_of(r["polygon"]), r["n"]), polygon_of(r["result"]));
  }
  for (const json& c : all.at("contours")) {
    std::vector<uint8_t> plane;
    for (const json& row : c["rows"])
      for (const char bit : row.get<std::string>()) plane.push_back(bit == '1');
    std::vector<std::vector<PixelPoint>> expected;
    for (const json& contour : c["contours"]) {
      expected.emplace_back();
      for (const json& v : contour) expected.back().push_back({v[0], v[1]});
    }
    CHECK(external_contours(test::rows_of_bits(plane, c["h"], c["w"]).data(), c["h"], c["w"]) == expected);
    std::vector<Polygon> parts;
    for (const auto& contour : expected) {
      parts.emplace_back();
      for (const PixelPoint& p : contour) parts.back().push_back({float(p.x), float(p.y)});
    }
    if (parts.size() > 1) check_points(merge_parts(parts), polygon_of(c["all"]));
  }
  for (const json& m : all.at("merge")) {
    std::vector<Polygon> parts;
    for (const json& p : m["parts"]) parts.push_back(polygon_of(p));
    check_points(merge_parts(parts), polygon_of(m["result"]));
  }
}

TEST_CASE("golden label scan: the original's outcome under its own policy") {
  for (const json& c : read_json(golden_dir() / "label_scan.json")) {
    if (c["content"].is_null()) continue;  // no file: seen by scan_labels, not by the parser
    CAPTURE(c["name"].get<std::string>());
    CAPTURE(c["single_cls"].get<bool>());
    const LabelFile f =
        parse_labels(c["content"].get<std::string>(), "image.txt", c["nc"], LabelPolicy::kOriginal, c["single_cls"]);
    const std::string status = f.unusable ? "corrupt" : f.objects.empty() ? "empty" : "ok";
    CHECK(status == c["status"].get<std::string>());
    if (status != "ok" || c["status"] != "ok") continue;
    REQUIRE(f.objects.size() == c["classes"].size());
    CHECK(f.duplicates == c["removed_duplicates"].get<int64_t>());
    for (size_t i = 0; i < f.objects.size(); ++i) {
      CHECK(f.objects[i].class_id == int32_t(c["classes"][i].get<double>()));
      for (size_t k = 0; k < 4; ++k) CHECK(f.objects[i].box[k] == doctest::Approx(c["boxes"][i][k].get<double>()).epsilon(1e-6));
      if (i < c["vertices"].size()) CHECK(f.objects[i].polygon.size() == c["vertices"][i].get<size_t>());
    }
  }
}
