#include "yolo/eval/detections.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tensor/base/check.h"
#include "tests/support/golden.h"
#include "yolo/eval/masks.h"

using namespace tessera;
using tessera::testing::golden_dir;
using tessera::testing::read_json;

namespace {

struct Row {
  float v[6];
};
const std::vector<Row> kExample{{{100, 100, 40, 40, .9f, .3f}},  {{104, 100, 40, 40, .8f, .85f}}, {{100, 103, 40, 40, .7f, .1f}},
                                {{300, 300, 50, 20, .25f, .2f}}, {{300, 300, 50, 20, .26f, .2f}}, {{110, 100, 40, 40, .6f, .6f}}};

struct Found : Detections {
  std::vector<float> coefficients;
};

// Non-maximum suppression of one image. rows: [cx, cy, w, h, nc scores, one coefficient].
Found suppress(const std::vector<float>& rows, int64_t anchors, int64_t nc, const DetectParams& params,
               const std::vector<int32_t>& classes = {}) {
  const Tensor all = rows.empty() ? Tensor::empty({1, 1, 0, 5 + nc}) : Tensor::from_vector(rows, {1, 1, anchors, 5 + nc});
  ops::DetectMaps maps;
  maps.decoded = true;
  for (size_t l = 0; l < 3; ++l) {
    const Tensor level = l == 0 ? all : all.narrow(2, 0, 0);
    maps.box[l] = level.narrow(-1, 0, 4), maps.cls[l] = level.narrow(-1, 4, nc), maps.coefficients[l] = level.narrow(-1, 4 + nc, 1);
  }
  const ops::DetectResult r = ops::detect(maps, params, classes);
  Found found;
  const float* row = r.detections.data<float>();
  for (int64_t i = 0; i < r.detections.size(1) && row[4] > 0; ++i, row += kDetectionColumns) {
    found.boxes.push_back({row[0], row[1], row[2], row[3]});
    found.scores.push_back(row[4]), found.classes.push_back(int32_t(row[5])), found.anchors.push_back(int32_t(row[6]));
    found.coefficients.push_back(r.coefficients.data<float>()[i]);
  }
  return found;
}
Found suppress(const std::vector<Row>& rows, const DetectParams& params) {
  std::vector<float> values;
  for (const Row& r : rows) {
    values.insert(values.end(), r.v, r.v + 6);
    values.push_back(0);
  }
  return suppress(values, int64_t(rows.size()), 2, params);
}

// The definition, without any of the shortcuts: all pairs, offset boxes.
std::vector<int32_t> plain_nms(const std::vector<float>& rows, int64_t anchors, int64_t nc, const DetectParams& o) {
  struct Box {
    float x1, y1, x2, y2, score;
    int32_t anchor;
  };
  std::vector<Box> all;
  for (int64_t a = 0; a < anchors; ++a) {
    const float* r = &rows[size_t(a * (5 + nc))];
    for (int64_t c = 0; c < nc; ++c) {
      if (!(r[4 + c] > o.confidence)) continue;
      const float off = o.agnostic ? 0 : float(c) * 7680;
      all.push_back({r[0] - r[2] / 2 + off, r[1] - r[3] / 2 + off, r[0] + r[2] / 2 + off, r[1] + r[3] / 2 + off, r[4 + c],
                     int32_t(a * nc + c)});
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Box& a, const Box& b) { return a.score > b.score; });
  std::vector<Box> kept;
  for (const Box& b : all) {
    bool gone = false;
    for (const Box& k : kept) {
      const float w = std::max(0.f, std::min(k.x2, b.x2) - std::max(k.x1, b.x1)),
                  h = std::max(0.f, std::min(k.y2, b.y2) - std::max(k.y1, b.y1));
      const float inter = w * h, area_k = (k.x2 - k.x1) * (k.y2 - k.y1), area_b = (b.x2 - b.x1) * (b.y2 - b.y1);
      gone = gone || double(inter / (area_k + area_b - inter)) > o.iou;
    }
    if (!gone) kept.push_back(b);
  }
  std::vector<int32_t> ids;
  for (const Box& k : kept) {
    if (int64_t(ids.size()) < o.max_detections) ids.push_back(k.anchor);
  }
  return ids;
}

}  // namespace

TEST_CASE("nms: numbers of the specification") {
  DetectParams o;
  Found d = suppress(kExample, o);
  REQUIRE(d.size() == 4);
  CHECK(d.boxes[0] == BoxXyxy{80, 80, 120, 120});
  CHECK(d.boxes[1] == BoxXyxy{84, 80, 124, 120});
  CHECK(d.boxes[2] == BoxXyxy{90, 80, 130, 120});
  CHECK(d.boxes[3] == BoxXyxy{275, 290, 325, 310});
  CHECK(d.classes == std::vector<int32_t>{0, 1, 0, 0});
  CHECK(d.scores == std::vector<float>{.9f, .85f, .6f, .26f});
  o.confidence = 0.001f, o.multi_label = true;
  d = suppress(kExample, o);
  REQUIRE(d.size() == 5);
  CHECK((d.classes[4] == 1 && d.scores[4] == .2f && d.boxes[4] == BoxXyxy{275, 290, 325, 310}));
}

TEST_CASE("nms: golden cases") {
  const auto golden = read_json(golden_dir() / "nms.json");
  for (const auto& c : golden.at("cases")) {
    const int64_t nc = c.at("nc");
    // One coefficient for each anchor, its number.
    std::vector<float> rows;
    for (size_t a = 0; a < c.at("rows").size(); ++a) {
      for (const auto& v : c.at("rows")[a]) rows.push_back(v.get<float>());
      rows.push_back(float(a));
    }
    DetectParams o;
    o.confidence = c.at("conf"), o.iou = c.at("iou"), o.multi_label = c.at("multi_label"), o.agnostic = c.at("agnostic");
    std::vector<int32_t> classes;
    if (!c.at("classes").is_null()) classes = c.at("classes").get<std::vector<int32_t>>();
    o.max_detections = c.at("max_det");
    const Found d = suppress(rows, int64_t(c.at("rows").size()), nc, o, classes);
    REQUIRE(size_t(d.size()) == c.at("kept").size());
    for (int64_t i = 0; i < d.size(); ++i) {
      const auto& k = c.at("kept")[size_t(i)];
      CHECK(d.anchors[size_t(i)] == k[0].get<int32_t>());
      CHECK(d.coefficients[size_t(i)] == k[0].get<float>());
      CHECK(d.classes[size_t(i)] == k[1].get<int32_t>());
      CHECK(d.scores[size_t(i)] == k[2].get<float>());
      const BoxXyxy& b = d.boxes[size_t(i)];
      CHECK((b.x1 == k[3].get<float>() && b.y1 == k[4].get<float>() && b.x2 == k[5].get<float>() && b.y2 == k[6].get<float>()));
    }
  }
  for (const auto& c : golden.at("scale_boxes")) {
    ResultGeometry g;
    g.network_height = c.at("net")[0], g.network_width = c.at("net")[1];
    g.original_height = c.at("original")[0], g.original_width = c.at("original")[1];
    if (!c.at("ratio_pad").is_null()) {
      g.has_ratio = true, g.gain = c.at("ratio_pad")[0][0], g.pad_left = c.at("ratio_pad")[1][0],
      g.pad_top = c.at("ratio_pad")[1][1];
    }
    for (size_t i = 0; i < c.at("boxes").size(); ++i) {
      const auto &in = c.at("boxes")[i], &out = c.at("result")[i];
      const BoxXyxy b = scale_box({in[0], in[1], in[2], in[3]}, g);
      CHECK(b.x1 == doctest::Approx(out[0].get<double>()).epsilon(1e-6));
      CHECK(b.y1 == doctest::Approx(out[1].get<double>()).epsilon(1e-6));
      CHECK(b.x2 == doctest::Approx(out[2].get<double>()).epsilon(1e-6));
      CHECK(b.y2 == doctest::Approx(out[3].get<double>()).epsilon(1e-6));
    }
  }
}

TEST_CASE("nms: shortcuts change nothing") {
  std::mt19937 rng(5);
  for (int round = 0; round < 30; ++round) {
    const int64_t nc = 1 + round % 5, anchors = 200;
    const float spread = round % 3 == 0 ? 30000.0f : 200.0f;  // beyond the class offset: classes can meet
    std::vector<float> rows;
    for (int64_t a = 0; a < anchors; ++a) {
      for (int k = 0; k < 2; ++k) rows.push_back(float(rng() % 1000) / 1000 * spread);
      for (int k = 0; k < 2; ++k) rows.push_back((0.05f + float(rng() % 100) / 150) * spread);
      for (int64_t c = 0; c < nc; ++c) rows.push_back(float(rng() % 64) / 64);
      rows.push_back(0);
    }
    DetectParams o;
    o.confidence = 0.2f, o.multi_label = nc > 1, o.agnostic = round % 4 == 1, o.max_detections = round % 2 ? 300 : 20, o.iou = 0.5;
    const Found d = suppress(rows, anchors, nc, o);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < d.size(); ++i) ids.push_back(int32_t(d.anchors[size_t(i)] * nc + d.classes[size_t(i)]));
    CHECK(ids == plain_nms(rows, anchors, nc, o));
  }
}

TEST_CASE("nms: more than 30000 candidates, odd numbers, bad arguments") {
  std::vector<float> rows;
  for (int a = 0; a < 9000; ++a) {
    rows.insert(rows.end(), {float(a % 100) * 50, float(a / 100) * 50, 40, 40});
    for (int c = 0; c < 5; ++c) rows.push_back(0.3f + float((a * 5 + c) % 4000) * 1e-4f);
    rows.push_back(0);
  }
  DetectParams o;
  o.multi_label = true, o.max_detections = 100000;
  const Found d = suppress(rows, 9000, 5, o);
  CHECK(d.size() == 30000);  // no two boxes of a class overlap
  CHECK(std::is_sorted(d.scores.begin(), d.scores.end(), std::greater<>()));
  CHECK(d.scores.back() > 0.42f);

  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<Row> odd{
      {{1, 1, 1, 1, nan, nan}}, {{nan, 1, 1, 1, .5f, 0}}, {{inf, 0, inf, 0, .6f, 0}}, {{5, 5, 0, 0, .7f, 0}}};
  CHECK(suppress(odd, {}).size() == 3);
  CHECK(suppress({}, 0, 2, {}).size() == 0);
  DetectParams bad;
  bad.confidence = 1.5f;
  CHECK_THROWS_AS(suppress(kExample, bad), Error);
  bad.confidence = 0.5f, bad.iou = -1;
  CHECK_THROWS_AS(suppress(kExample, bad), Error);
}

TEST_CASE("decode: every box and score against the definition in double") {
  std::mt19937 rng(9);
  std::normal_distribution<float> normal(0, 3);
  const int64_t nc = 5, masks = 3;
  const std::array<int64_t, kAnchorLevels> strides{8, 16, 32};
  RawOutputs outputs;
  outputs.prototypes = Variable(Tensor::zeros({2, 24, 40, masks}));
  std::vector<Tensor> joined;  // boxes and classes side by side
  for (size_t l = 0; l < 3; ++l) {
    const Tensor map = Tensor::empty({2, 12 >> l, 20 >> l, 64 + nc}), k = Tensor::empty({2, 12 >> l, 20 >> l, masks});
    for (const Tensor& t : {map, k}) {
      for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = normal(rng);
    }
    outputs.box[l] = Variable(map.narrow(-1, 0, 64)), outputs.cls[l] = Variable(map.narrow(-1, 64, nc));
    outputs.coefficients[l] = Variable(k);
    joined.push_back(map);
  }
  DetectParams all;  // every class of every anchor
  all.confidence = 0, all.iou = 1, all.multi_label = true, all.max_detections = 100000;
  const BatchDetections found = detect(outputs, strides, all);
  CHECK(found.prototypes.shares_storage(outputs.prototypes.data()));
  REQUIRE(found.images.size() == 2);
  const int64_t anchors = 12 * 20 + 6 * 10 + 3 * 5;
  for (size_t image = 0; image < 2; ++image) {
    const Detections& d = found.images[image];
    REQUIRE(d.size() == anchors * nc);
    CHECK(std::is_sorted(d.scores.begin(), d.scores.end(), std::greater<>()));
    for (size_t i = 0; i < d.scores.size(); ++i) {
      int64_t cell = d.anchors[i];
      size_t l = 0;
      for (; cell >= joined[l].size(1) * joined[l].size(2); ++l) cell -= joined[l].size(1) * joined[l].size(2);
      const int64_t y = cell / joined[l].size(2), x = cell % joined[l].size(2);
      const float* in = joined[l].select(0, int64_t(image)).select(0, y).select(0, x).data<float>();
      double side[4];
      for (int s = 0; s < 4; ++s) {
        double sum = 0, moment = 0;
        for (int b = 0; b < 16; ++b) sum += std::exp(double(in[s * 16 + b])), moment += b * std::exp(double(in[s * 16 + b]));
        side[s] = moment / sum;
      }
      const double stride = double(strides[l]), cx = double(x) + .5, cy = double(y) + .5;
      const auto near = [](float value, double wanted) { return std::abs(double(value) - wanted) <= 1e-3; };
      CHECK(near(d.boxes[i].x1, (cx - side[0]) * stride));
      CHECK(near(d.boxes[i].y1, (cy - side[1]) * stride));
      CHECK(near(d.boxes[i].x2, (cx + side[2]) * stride));
      CHECK(near(d.boxes[i].y2, (cy + side[3]) * stride));
      CHECK(d.scores[i] == doctest::Approx(1 / (1 + std::exp(-double(in[64 + d.classes[i]])))).epsilon(1e-6));
      const float* k = outputs.coefficients[l].data().select(0, int64_t(image)).select(0, y).select(0, x).data<float>();
      const float* kept = found.coefficients.data<float>() + found.row(int64_t(image), int64_t(i)) * masks;
      CHECK(std::equal(k, k + masks, kept));
    }
  }
}

TEST_CASE("decode: extreme logits stay finite, NaN never becomes a detection") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  RawOutputs outputs;
  outputs.prototypes = Variable(Tensor::zeros({1, 2, 2, 1}));
  for (size_t l = 0; l < 3; ++l) {
    const int64_t n = l == 0 ? 1 : 0;
    outputs.box[l] = Variable(Tensor::zeros({1, n, n, 64})), outputs.cls[l] = Variable(Tensor::zeros({1, n, n, 3}));
    outputs.coefficients[l] = Variable(Tensor::zeros({1, n, n, 1}));
  }
  outputs.box[0].data().data<float>()[5] = 1e30f;
  const float logits[] = {-1000, 1000, nan};
  std::copy(logits, logits + 3, outputs.cls[0].data().data<float>());
  DetectParams all;
  all.confidence = 0, all.multi_label = true;
  const Detections d = detect(outputs, {8, 16, 32}, all).images[0];
  REQUIRE(d.size() == 2);
  CHECK((d.classes == std::vector<int32_t>{1, 0}));
  CHECK(d.scores[0] == 1.0f);
  CHECK(d.scores[1] < 1e-30f);
  CHECK(d.boxes[0].x1 == doctest::Approx((0.5 - 5) * 8));
  CHECK(d.boxes[0].x2 == doctest::Approx((0.5 + 7.5) * 8));
}
