#include "yolo/eval/predictor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>

#include "tests/yolo/formula_model.h"
#include "yolo/eval/prediction_text.h"

using namespace tessera;

namespace {

// One prototype: +1 in the cells of `painted` and -1 elsewhere, so that its mask is exactly these cells, whatever their size.
struct Painted {
  LetterboxPlan plan;
  BatchDetections found;

  Painted(const LetterboxPlan& plan_, const PixelBox& cells) : plan(plan_) {
    const int height = plan.height() / 4, width = plan.width() / 4;
    std::vector<float> values;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x)
        values.push_back(x >= cells.x0 && x < cells.x1 && y >= cells.y0 && y < cells.y1 ? 1.0f : -1.0f);
    }
    found.prototypes = Tensor::from_vector(values, {1, height, width, 1});
    found.images.emplace_back();
    add({cells.x0 * 4 - 8.0f, cells.y0 * 4 - 8.0f, cells.x1 * 4 + 8.0f, cells.y1 * 4 + 8.0f}, 1, 0.9f);
  }
  void add(const BoxXyxy& box, float coefficient, float score) {
    Detections& d = found.images[0];
    d.boxes.push_back(box), d.scores.push_back(score), d.classes.push_back(3), d.anchors.push_back(0);
    coefficients_.push_back(coefficient);
    found.coefficients = Tensor::from_vector(coefficients_, {1, d.size(), 1});
  }
  std::vector<ObjectPrediction> objects(int height, int width, const PredictorOptions& options = {}) const {
    const InputImage input{plan, height, width};
    return original_objects(found, std::span(&input, 1), options).front();
  }

 private:
  std::vector<float> coefficients_;
};

LetterboxPlan predict_plan(int width, int height) {
  LetterboxOptions options;
  options.auto_shape = true;
  return plan_letterbox({height, width}, {640, 640}, options);
}

// Set within the box but for squares of side `corner` in its corners.
std::vector<uint8_t> rectangle(int height, int width, const PixelBox& box, int corner) {
  std::vector<uint8_t> mask(size_t(height) * size_t(width));
  for (int y = box.y0; y < box.y1; ++y) {
    const int inset = y < box.y0 + corner || y >= box.y1 - corner ? corner : 0;
    std::fill_n(mask.begin() + int64_t(y) * width + box.x0 + inset, box.x1 - box.x0 - 2 * inset, uint8_t(1));
  }
  return mask;
}

std::vector<uint8_t> plane(const MaskPatch& mask) {
  std::vector<uint8_t> out(size_t(mask.height) * size_t(mask.width));
  mask.view().paint(out.data());
  return out;
}

int64_t different(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  REQUIRE(a.size() == b.size());
  int64_t n = 0;
  for (size_t i = 0; i < a.size(); ++i) n += a[i] != b[i];
  return n;
}

Image noise(int height, int width, unsigned seed) {
  Image image(height, width);
  std::mt19937 random(seed);
  for (uint8_t& v : image.pixels) v = uint8_t(random());
  return image;
}

struct SmallModel {
  YoloSeg model{parse_model_yaml("yolov8n-seg", "", 3)};
  std::vector<std::string> names{"cat", "dog", "\"bird\""};
  SmallModel() { tessera::testing::set_formula_weights(model); }
};

PredictorOptions small_options() {
  PredictorOptions o;
  o.imgsz = 64;
  o.confidence = 0.1f;
  o.max_detections = 20;
  o.polygons = true;
  return o;
}

bool same(const Prediction& a, const Prediction& b) {
  return a.height == b.height && a.width == b.width &&
         std::equal(a.objects.begin(), a.objects.end(), b.objects.begin(), b.objects.end(),
                    [](const ObjectPrediction& p, const ObjectPrediction& q) {
                      return p.class_id == q.class_id && p.confidence == q.confidence && p.box == q.box &&
                             p.mask.rle() == q.mask.rle() && p.rings == q.rings && p.polygon == q.polygon;
                    });
}

}  // namespace

TEST_CASE("a mask painted at a known place comes back there, pixel by pixel") {
  struct Row {
    int width, height;
    PixelBox cells, expected;  // cells of four network pixels; pixels of the original
    int corner;                // side of the squares that bilinear enlargement cuts off the corners: one network pixel
  };
  const Row rows[] = {
      {640, 427, {20, 10, 60, 50}, {80, 30, 240, 190}, 1},    // padding 10 above, 11 below; no scaling
      {1280, 720, {20, 13, 70, 53}, {160, 80, 560, 400}, 2},  // 12 above and below, twice as large
      {810, 1080, {10, 20, 40, 60}, {68, 135, 270, 405}, 0},  // no padding; 1.6875 times as large
      {320, 214, {20, 10, 60, 50}, {40, 15, 120, 95}, 0},     // the image was enlarged
  };
  for (const Row& r : rows) {
    INFO(r.width << " x " << r.height);
    const LetterboxPlan plan = predict_plan(r.width, r.height);
    const Painted painted(plan, r.cells);
    PredictorOptions options;
    options.polygons = true;
    const auto objects = painted.objects(r.height, r.width, options);
    REQUIRE(objects.size() == 1);
    const ObjectPrediction& o = objects[0];
    CHECK(o.class_id == 3);
    CHECK(o.confidence == 0.9f);
    CHECK(o.mask.height == r.height);
    CHECK(o.mask.width == r.width);
    const std::vector<uint8_t> expected = rectangle(r.height, r.width, r.expected, r.corner);
    const int64_t border = r.width == 810 ? 2 * (202 + 270) : 0;  // of a pixel, where the borders fall between pixels
    CHECK(different(plane(o.mask), expected) <= border);
    REQUIRE(o.rings.size() == 1);
    const BoxXyxy ring = bounding_box(o.rings[0]), polygon = bounding_box(o.polygon);
    const double scale = 1 / plan.ratio;
    CHECK(std::abs(ring.x1 - float(r.expected.x0)) <= 1);
    CHECK(std::abs(ring.y2 - float(r.expected.y1 - 1)) <= 1);
    // The original's polygon is traced at network size: its last pixel ends one network pixel before the border.
    CHECK(double(polygon.x1) == doctest::Approx(r.expected.x0).epsilon(0.02));
    CHECK(std::abs(double(polygon.x2) - (r.expected.x1 - scale)) <= 1.5);
    CHECK(std::abs(double(polygon.y2) - (r.expected.y1 - scale)) <= 1.5);

    options.retina_masks = true;
    const auto native = painted.objects(r.height, r.width, options);
    REQUIRE(native.size() == 1);
    // Prototypes cover whole cells only, so that native masks may be shifted by part of a cell.
    CHECK(different(plane(native[0].mask), expected) <=
          int64_t(4 / plan.ratio * 2 * (r.expected.x1 - r.expected.x0 + r.expected.y1 - r.expected.y0)));
  }
}

TEST_CASE("boxes go back by gain and padding and end at the image") {
  const LetterboxPlan plan = predict_plan(1280, 720);
  Painted painted(plan, {20, 13, 70, 53});
  painted.add({-50, -50, 700, 500}, 1, 0.8f);
  const auto objects = painted.objects(720, 1280);
  REQUIRE(objects.size() == 2);
  CHECK(objects[0].box == BoxXyxy{144, 64, 576, 416});
  CHECK(objects[1].box == BoxXyxy{0, 0, 1280, 720});
}

TEST_CASE("detections without a mask pixel are dropped") {
  const LetterboxPlan plan = predict_plan(640, 427);
  Painted painted(plan, {20, 10, 60, 50});
  painted.add({400, 100, 500, 200}, 1, 0.8f);   // only cells of -1
  painted.add({400, 100, 500, 200}, -1, 0.7f);  // turned round
  painted.add({100, 100, 100, 100}, 1, 0.6f);   // no area
  for (const bool retina : {false, true}) {
    PredictorOptions options;
    options.retina_masks = retina;
    const auto objects = painted.objects(427, 640, options);
    REQUIRE(objects.size() == 2);
    CHECK(objects[0].confidence == 0.9f);
    CHECK(objects[1].confidence == 0.7f);
    CHECK(objects[0].polygon.empty());  // not asked for
  }
}

TEST_CASE("letterboxes are those of the table") {
  SmallModel small;
  struct Row {
    int width, height, top, bottom, left, right, out_height, out_width;
  };
  const Row rows[] = {{810, 1080, 0, 0, 0, 0, 640, 480},
                      {1280, 720, 12, 12, 0, 0, 384, 640},
                      {640, 427, 10, 11, 0, 0, 448, 640},
                      {333, 500, 0, 0, 11, 11, 640, 448},
                      {100, 37, 9, 10, 0, 0, 256, 640}};
  Predictor predictor(small.model, small.names);
  for (const Row& r : rows) {
    const LetterboxPlan p = predictor.plan(Image(r.height, r.width));
    CHECK(p.top == r.top);
    CHECK(p.bottom == r.bottom);
    CHECK(p.left == r.left);
    CHECK(p.right == r.right);
    CHECK(p.height() == r.out_height);
    CHECK(p.width() == r.out_width);
  }
}

TEST_CASE("a whole prediction: in the image, in order, the same alone and in company") {
  SmallModel small;
  small.model.train(true);
  {
    Predictor predictor(small.model, small.names, small_options());
    CHECK(!small.model.training());
    const std::vector<Image> images = {noise(37, 100, 1), noise(80, 60, 2), noise(37, 100, 3)};
    const std::vector<Prediction> together = predictor.run(images);
    REQUIRE(together.size() == 3);
    size_t objects = 0;
    for (size_t i = 0; i < images.size(); ++i) {
      const Prediction alone = predictor.run(images[i]);
      CHECK(same(alone, together[i]));
      CHECK(alone.height == images[i].height);
      CHECK(alone.width == images[i].width);
      CHECK(alone.objects.size() <= 20);
      objects += alone.objects.size();
      float last = 1;
      for (const ObjectPrediction& o : alone.objects) {
        CHECK(o.confidence > 0.1f);
        CHECK(o.confidence <= last);
        last = o.confidence;
        CHECK(o.box.x1 >= 0);
        CHECK(o.box.y1 >= 0);
        CHECK(o.box.x2 <= float(alone.width));
        CHECK(o.box.y2 <= float(alone.height));
        CHECK(o.mask.height == alone.height);
      }
    }
    CHECK(objects > 0);
    CHECK(!same(together[0], together[2]));
    CHECK(predictor.run(std::span<const Image>()).empty());
  }
  CHECK(small.model.training());
  CHECK(!small.model.folded());
}

TEST_CASE("options are obeyed, and refused when they make no sense") {
  SmallModel small;
  const Image image = noise(64, 64, 4);
  const auto run = [&](const PredictorOptions& o) { return Predictor(small.model, small.names, o).run(image); };
  PredictorOptions o = small_options();
  const Prediction all = run(o);
  REQUIRE(all.objects.size() > 1);
  o.classes = {all.objects[0].class_id};
  const Prediction some = run(o);
  CHECK(!some.objects.empty());
  for (const ObjectPrediction& p : some.objects) CHECK(p.class_id == o.classes[0]);
  o = small_options();
  o.max_detections = 1;
  CHECK(run(o).objects.size() <= 1);
  o = small_options();
  o.confidence = 1;
  CHECK(run(o).objects.empty());

  const auto refused = [&](auto change) {
    PredictorOptions bad = small_options();
    change(bad);
    try {
      Predictor(small.model, small.names, bad);
    } catch (const Error& e) {
      return e.code() == ErrorCode::kUsage;
    }
    return false;
  };
  CHECK(refused([](PredictorOptions& b) { b.imgsz = 100; }));
  CHECK(refused([](PredictorOptions& b) { b.confidence = 2; }));
  CHECK(refused([](PredictorOptions& b) { b.iou = -1; }));
  CHECK(refused([](PredictorOptions& b) { b.classes = {3}; }));
  CHECK_THROWS(Predictor(small.model, {"cat"}, small_options()));
}

TEST_CASE("the JSON of an image has exactly the documented keys, and its masks are the masks") {
  const LetterboxPlan plan = predict_plan(640, 427);
  const Painted painted(plan, {20, 10, 60, 50});
  Prediction p{427, 640, {}, 1, 2, 3};
  p.objects = painted.objects(427, 640);
  const std::vector<std::string> names{"a", "b", "c", "quote \" and \xff"};
  const auto json = nlohmann::json::parse(prediction_json("photos/x.jpg", p, names));
  const auto keys = [](const nlohmann::json& j) {
    std::set<std::string> out;
    for (const auto& item : j.items()) out.insert(item.key());
    return out;
  };
  CHECK(keys(json) == std::set<std::string>{"image", "width", "height", "speed_ms", "detections"});
  CHECK(json["image"] == "photos/x.jpg");
  CHECK(json["width"] == 640);
  CHECK(json["height"] == 427);
  CHECK(json["speed_ms"] == nlohmann::json{{"preprocess", 1.0}, {"inference", 2.0}, {"postprocess", 3.0}});
  REQUIRE(json["detections"].size() == 1);
  const auto& d = json["detections"][0];
  CHECK(keys(d) == std::set<std::string>{"class", "name", "confidence", "box", "rle", "rings"});
  CHECK(d["class"] == 3);
  CHECK(d["confidence"] == 0.9);
  CHECK(d["box"] == nlohmann::json{72.0, 22.0, 248.0, 198.0});
  CHECK(d["rle"]["size"] == nlohmann::json{427, 640});
  const Rle rle = rle_from_string(d["rle"]["counts"].get<std::string>(), 427, 640);
  std::vector<uint8_t> mask(size_t(427 * 640));
  rle_decode(rle, mask.data());
  CHECK(different(mask, rectangle(427, 640, {80, 30, 240, 190}, 1)) == 0);
  CHECK(d["rings"] == nlohmann::json::parse("[[[81,30],[80,31],[80,188],[81,189],[238,189],[239,188],[239,31],[238,30]]]"));
  CHECK(nlohmann::json::parse(prediction_json("x", {5, 6, {}, 0, 0, 0}, names))["detections"] == nlohmann::json::array());
}

TEST_CASE("label lines hold class, fractions and, on demand, the confidence") {
  Prediction p{100, 200, {}, 0, 0, 0};
  ObjectPrediction o;
  o.class_id = 7;
  o.confidence = 0.8125f;
  o.polygon = {{20, 10}, {100, 10}, {25, 100}};
  p.objects = {o, ObjectPrediction{}, o};
  const std::string line = "7 0.1 0.1 0.5 0.1 0.125 1";
  CHECK(prediction_labels(p, false) == line + "\n" + line + "\n");
  CHECK(prediction_labels(p, true) == line + " 0.8125\n" + line + " 0.8125\n");
  CHECK(prediction_labels({100, 200, {}, 0, 0, 0}, true).empty());
}
