#include "yolo/eval/nms.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tensor/base/check.h"
#include "tensor/base/parallel.h"
#include "tests/support/golden.h"
#include "yolo/eval/decode.h"
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

Detections run(const std::vector<Row>& rows, const NmsOptions& o) {
  return non_max_suppression(rows[0].v, int64_t(rows.size()), 2, 0, 6, o);
}

// The definition, without any of the shortcuts: all pairs, offset boxes.
std::vector<int32_t> plain_nms(const std::vector<float>& rows, int64_t anchors, int64_t nc, const NmsOptions& o) {
  struct Box {
    float x1, y1, x2, y2, score;
    int32_t anchor;
  };
  std::vector<Box> all;
  for (int64_t a = 0; a < anchors; ++a) {
    const float* r = &rows[size_t(a * (4 + nc))];
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
  NmsOptions o;
  Detections d = run(kExample, o);
  REQUIRE(d.size() == 4);
  CHECK(d.boxes[0] == BoxXyxy{80, 80, 120, 120});
  CHECK(d.boxes[1] == BoxXyxy{84, 80, 124, 120});
  CHECK(d.boxes[2] == BoxXyxy{90, 80, 130, 120});
  CHECK(d.boxes[3] == BoxXyxy{275, 290, 325, 310});
  CHECK(d.classes == std::vector<int32_t>{0, 1, 0, 0});
  CHECK(d.scores == std::vector<float>{.9f, .85f, .6f, .26f});
  o.confidence = 0.001f, o.multi_label = true;
  d = run(kExample, o);
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
    NmsOptions o;
    o.confidence = c.at("conf"), o.iou = c.at("iou"), o.multi_label = c.at("multi_label"), o.agnostic = c.at("agnostic");
    if (!c.at("classes").is_null()) o.classes = c.at("classes").get<std::vector<int32_t>>();
    o.max_detections = c.at("max_det");
    const Detections d = non_max_suppression(rows.data(), int64_t(c.at("rows").size()), nc, 1, nc + 5, o);
    REQUIRE(size_t(d.size()) == c.at("kept").size());
    for (int64_t i = 0; i < d.size(); ++i) {
      const auto& k = c.at("kept")[size_t(i)];
      CHECK(d.anchors[size_t(i)] == k[0].get<int32_t>());
      CHECK(d.coefficients_of(i)[0] == k[0].get<float>());
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
    }
    NmsOptions o;
    o.confidence = 0.2f, o.multi_label = nc > 1, o.agnostic = round % 4 == 1, o.max_detections = round % 2 ? 300 : 20, o.iou = 0.5;
    const Detections d = non_max_suppression(rows.data(), anchors, nc, 0, 4 + nc, o);
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
  }
  NmsOptions o;
  o.multi_label = true, o.max_detections = 100000;
  const Detections d = non_max_suppression(rows.data(), 9000, 5, 0, 9, o);
  CHECK(d.size() == 30000);  // no two boxes of a class overlap
  CHECK(std::is_sorted(d.scores.begin(), d.scores.end(), std::greater<>()));
  CHECK(d.scores.back() > 0.42f);

  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<Row> odd{
      {{1, 1, 1, 1, nan, nan}}, {{nan, 1, 1, 1, .5f, 0}}, {{inf, 0, inf, 0, .6f, 0}}, {{5, 5, 0, 0, .7f, 0}}};
  CHECK(run(odd, {}).size() == 3);
  CHECK(non_max_suppression(nullptr, 0, 2, 0, 6, {}).size() == 0);
  NmsOptions bad;
  bad.confidence = 1.5f;
  CHECK_THROWS_AS(run(kExample, bad), Error);
  bad.confidence = 0.5f, bad.iou = -1;
  CHECK_THROWS_AS(run(kExample, bad), Error);

  Detections kept = run(kExample, {});
  kept.keep({1, 0, 0, 1});
  CHECK((kept.size() == 2 && kept.scores[1] == .26f));
}

TEST_CASE("decode: against the definition in double, any layout, any number of threads") {
  std::mt19937 rng(9);
  std::normal_distribution<float> normal(0, 3);
  const int64_t nc = 5, masks = 3, joined = 64 + nc + 7;
  std::vector<std::vector<float>> maps, coefficients;
  std::vector<HeadLevel> levels;
  for (int l = 0; l < 3; ++l) {
    const int h = 12 >> l, w = 20 >> l;
    auto& map = maps.emplace_back(size_t(h * w) * size_t(joined));
    auto& k = coefficients.emplace_back(size_t(h * w) * 8);
    for (float& v : map) v = normal(rng);
    for (float& v : k) v = normal(rng);
  }
  for (int l = 0; l < 3; ++l) {
    const float* map = maps[size_t(l)].data();
    levels.push_back({map, joined, map + 64, joined, coefficients[size_t(l)].data(), 8, 12 >> l, 20 >> l, 8 << l});
  }
  const int64_t anchors = anchor_count(levels), pitch = 4 + nc + masks + 1;
  CHECK(anchors == 12 * 20 + 6 * 10 + 3 * 5);
  std::vector<float> rows(size_t(anchors * pitch), -77);
  decode_head(levels, nc, masks, rows.data(), pitch);
  int64_t a = 0;
  for (const HeadLevel& l : levels) {
    for (int y = 0; y < l.height; ++y) {
      for (int x = 0; x < l.width; ++x, ++a) {
        const float* in = l.box + (y * l.width + x) * joined;
        double side[4];
        for (int s = 0; s < 4; ++s) {
          double sum = 0, moment = 0;
          for (int b = 0; b < 16; ++b) sum += std::exp(double(in[s * 16 + b])), moment += b * std::exp(double(in[s * 16 + b]));
          side[s] = moment / sum;
        }
        const double x1 = x + .5 - side[0], y1 = y + .5 - side[1], x2 = x + .5 + side[2], y2 = y + .5 + side[3];
        const float* row = &rows[size_t(a * pitch)];
        CHECK(row[0] == doctest::Approx((x1 + x2) / 2 * l.stride).epsilon(1e-5));
        CHECK(row[1] == doctest::Approx((y1 + y2) / 2 * l.stride).epsilon(1e-5));
        CHECK(row[2] == doctest::Approx((x2 - x1) * l.stride).epsilon(1e-5));
        CHECK(row[3] == doctest::Approx((y2 - y1) * l.stride).epsilon(1e-5));
        for (int c = 0; c < nc; ++c) CHECK(row[4 + c] == doctest::Approx(1 / (1 + std::exp(-double(in[64 + c])))).epsilon(1e-6));
        for (int k = 0; k < masks; ++k) CHECK(row[4 + nc + k] == l.coefficients[(y * l.width + x) * 8 + k]);
        CHECK(row[pitch - 1] == -77);
      }
    }
  }
  std::vector<float> one(rows.size(), -77), skipped(rows.size(), -77);
  const int threads = compute_threads();
  set_compute_threads(1);
  decode_head(levels, nc, masks, one.data(), pitch);
  set_compute_threads(threads);
  CHECK(one == rows);

  NmsOptions o;
  decode_head(levels, nc, masks, skipped.data(), pitch, o.confidence);
  const Detections full = non_max_suppression(rows.data(), anchors, nc, masks, pitch, o);
  const Detections fast = non_max_suppression(skipped.data(), anchors, nc, masks, pitch, o);
  CHECK(full.anchors == fast.anchors);
  CHECK(full.scores == fast.scores);
}

TEST_CASE("decode: extreme logits stay finite, NaN never becomes a detection") {
  std::vector<float> box(64, 0), cls{-1000, 1000, std::numeric_limits<float>::quiet_NaN()};
  box[5] = 1e30f;
  std::vector<float> row(7);
  const HeadLevel level{box.data(), 64, cls.data(), 3, nullptr, 0, 1, 1, 8};
  decode_head(std::span(&level, 1), 3, 0, row.data(), 7);
  CHECK(row[4] < 1e-30f);
  CHECK(row[5] == 1.0f);
  CHECK(!(row[6] > 0.001f));
  CHECK(std::isfinite(row[0]));
  CHECK(row[2] == doctest::Approx((5 + 7.5) * 8));
}
