#include "yolo/eval/coco_eval.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "data/coco_json.h"
#include "tensor/base/check.h"
#include "tensor/base/parallel.h"
#include "tests/eval/golden_curve.h"
#include "tests/support/formula.h"
#include "tests/support/golden.h"
#include "tests/support/temp_folder.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

CocoReport evaluate_files(const nlohmann::json& gt, const nlohmann::json& dt, IouKind kind, DetectionCurves* curves = nullptr) {
  const TempFolder folder;
  const auto gt_path = folder.write("gt.json", gt.dump()), dt_path = folder.write("dt.json", dt.dump());
  const CocoInstances instances = read_coco_instances(gt_path);
  const CocoEval eval(instances,
                      read_coco_results(dt_path, instances, kind == IouKind::kMask ? ReadMasks::kComparable : ReadMasks::kNo));
  return eval.evaluate(kind, curves);
}

void check_figures(const CocoSummary& s, const nlohmann::json& expected) {
  for (size_t i = 0; i < 12; ++i) CHECK(std::abs(s.values[i] - expected[i].get<double>()) < 1e-12);
}

bool same(const CocoReport& a, const CocoReport& b) {
  bool equal = std::equal(a.summary.values, a.summary.values + 12, b.summary.values) && a.precision == b.precision &&
               a.recall == b.recall && a.f1 == b.f1 && a.confidence == b.confidence;
  for (size_t c = 0; c < a.classes.size(); ++c)
    equal = equal && a.classes[c].ap == b.classes[c].ap && a.classes[c].f1 == b.classes[c].f1;
  return equal;
}

// Objects and detections that need no file; boxes and rectangular masks.
struct Scene {
  struct Item {
    int64_t image;
    int32_t category;
    double score;
    int x, y, w, h;
    bool crowd;
  };
  std::vector<Item> truths, detections;
  bool only_compared = false;  // masks of detections whose class has no object in their image are empty

  bool is_compared(const Item& d) const {
    return std::any_of(truths.begin(), truths.end(), [&](const Item& t) { return t.image == d.image && t.category == d.category; });
  }
  Rle mask(const Item& i) const {
    std::vector<uint8_t> pixels(100 * 120);
    for (int y = i.y; y < i.y + i.h; ++y) std::fill_n(pixels.begin() + y * 120 + i.x, i.w, uint8_t{1});
    return rle_encode(pixels.data(), 100, 120);
  }

  CocoReport evaluate(IouKind kind, int64_t image_shift = 0) const {
    CocoEval eval({{1, "a"}, {5, "b"}, {3, "c"}});
    for (int64_t i = 0; i < 6; ++i) eval.add_image(10 * (i + image_shift), 100, 120);
    for (const Item& t : truths) {
      const Rle m = mask(t);
      eval.add_truth({t.image, t.category, t.crowd, double(t.w * t.h), {double(t.x), double(t.y), double(t.w), double(t.h)}}, &m);
    }
    for (const Item& d : detections) {
      const Rle m = only_compared && !is_compared(d) ? Rle{100, 120, {100 * 120}} : mask(d);
      eval.add_detection({d.image, d.category, d.score, {double(d.x), double(d.y), double(d.w), double(d.h)}, double(d.w * d.h)},
                         &m);
    }
    return eval.evaluate(kind);
  }
};

Scene random_scene(uint32_t seed, bool ties) {
  std::mt19937 rng(seed);
  Scene s;
  const auto pick = [&](int n) { return int(rng() % unsigned(n)); };
  for (int64_t image = 0; image < 6; ++image) {
    for (int k = pick(8); k > 0; --k) {
      const Scene::Item t{image, pick(3), 0, pick(60), pick(40), 4 + pick(50), 4 + pick(50), pick(8) == 0};
      s.truths.push_back(t);
      for (int n = pick(4); n > 0; --n) {
        Scene::Item d = t;
        d.score = ties ? 0.1 * (1 + pick(5)) : double(rng()) / 4294967296.0;
        d.x = std::clamp(d.x + pick(7) - 3, 0, 119 - d.w), d.y = std::clamp(d.y + pick(7) - 3, 0, 99 - d.h);
        s.detections.push_back(d);
      }
    }
  }
  std::shuffle(s.detections.begin(), s.detections.end(), rng);
  return s;
}

}  // namespace

TEST_CASE("coco eval: golden cases of pycocotools") {
  for (const auto& c : read_json(golden_dir() / "coco_eval.json")) {
    check_figures(evaluate_files(c.at("gt"), c.at("dt"), IouKind::kBox).summary, c.at("bbox"));
    check_figures(evaluate_files(c.at("gt"), c.at("dt"), IouKind::kMask).summary, c.at("segm"));
  }
}

TEST_CASE("coco eval: golden curves of pycocotools, which agree with the report") {
  const auto cases = read_json(golden_dir() / "coco_eval.json"), golden = read_json(golden_dir() / "curves.json");
  const auto& points = golden.at("points");
  for (const auto& expected : golden.at("coco")) {
    CAPTURE(expected.at("case").get<int>());
    const auto& c = cases[expected.at("case").get<size_t>()];
    for (const IouKind kind : {IouKind::kBox, IouKind::kMask}) {
      DetectionCurves curves;
      const CocoReport report = evaluate_files(c.at("gt"), c.at("dt"), kind, &curves);
      const auto& categories = expected.at(kind == IouKind::kBox ? "bbox" : "segm");
      REQUIRE(curves.classes.size() == categories.size());
      for (size_t k = 0; k < curves.classes.size(); ++k) {
        const auto& row = curves.classes[k];
        const auto& e = categories[k];
        CHECK(row.class_id == e.at("category").get<int64_t>());
        CHECK(std::abs(row.ap50 - e.at("ap50").get<double>()) < 1e-11);
        check_curve(row.precision_at_recall, e.at("pr"), points);
        const bool detected = !e.at("p").at("at")[0].is_null();
        check_curve(row.precision, e.at("p"), points, detected ? 1 : 0);
        check_curve(row.recall, e.at("r"), points);
        for (size_t i = 0; i < row.f1.size(); ++i) {
          const double sum = row.precision[i] + row.recall[i];
          CHECK(row.f1[i] == doctest::Approx(row.recall[i] == 0 ? 0 : 2 * row.precision[i] * row.recall[i] / sum));
        }
      }
      const auto best = std::max_element(curves.mean.f1.begin(), curves.mean.f1.end());
      const size_t at = size_t(best - curves.mean.f1.begin());
      CHECK(*best == doctest::Approx(report.f1).epsilon(1e-12));
      CHECK(curves.x[at] == doctest::Approx(report.confidence));
      CHECK(curves.mean.recall[at] == doctest::Approx(report.recall).epsilon(1e-12));
      CHECK(curves.mean.ap50 == doctest::Approx(report.summary.map50()).epsilon(1e-12));
    }
  }
}

TEST_CASE("coco eval: real annotations") {
  const auto data = std::filesystem::path(TESSERA_SOURCE_DIR) / ".." / "shared" / "data" / "coco-tiny" / "annotations";
  const auto golden = read_json(golden_dir() / "coco_tiny.json");
  for (const auto& [split, expected] : golden.items()) {
    const auto path = data / ("instances_" + split + ".json");
    if (!std::filesystem::exists(path)) {
      MESSAGE("skipped: " << path.string() << " is not there");
      continue;
    }
    const auto truth = read_json(path);
    // The recipe of tools/golden/coco_tiny.py.
    nlohmann::json detections = nlohmann::json::array();
    const uint64_t hash = fnv1a("coco_tiny");
    const auto rounded = [](double v, double factor) { return std::floor(v * factor + 0.5) / factor; };
    const auto& categories = truth.at("categories");
    for (size_t j = 0; j < truth.at("annotations").size(); ++j) {
      const auto& a = truth.at("annotations")[j];
      double f[8];
      for (int k = 0; k < 8; ++k) f[k] = formula_fraction(hash, int64_t(8 * j) + k);
      if (f[0] < 0.12) continue;
      int64_t category = a.at("category_id");
      if (f[1] < 0.08) {
        size_t at = 0;
        while (categories[at].at("id") != category) ++at;
        category = categories[(at + 1) % categories.size()].at("id");
      }
      const double bx = a.at("bbox")[0], by = a.at("bbox")[1], bw = a.at("bbox")[2], bh = a.at("bbox")[3];
      const double s = 0.85 + 0.3 * f[2], dx = (f[3] - 0.5) * 0.3 * bw, dy = (f[4] - 0.5) * 0.3 * bh, cx = bx + bw / 2,
                   cy = by + bh / 2;
      const auto x_of = [&](double x) { return rounded(cx + (x - cx) * s + dx, 100); };
      const auto y_of = [&](double y) { return rounded(cy + (y - cy) * s + dy, 100); };
      nlohmann::json polygons = a.at("segmentation");
      if (!polygons.is_array()) polygons = {{bx, by, bx + bw, by, bx + bw, by + bh, bx, by + bh}};
      for (auto& p : polygons) {
        for (size_t i = 0; i < p.size(); ++i) p[i] = i % 2 ? y_of(p[i]) : x_of(p[i]);
      }
      nlohmann::json record{{"image_id", a.at("image_id")},
                            {"category_id", category},
                            {"bbox", {x_of(bx), y_of(by), rounded(bw * s, 100), rounded(bh * s, 100)}},
                            {"score", rounded(0.05 + 0.9 * f[5], 1000)},
                            {"segmentation", polygons}};
      detections.push_back(record);
      if (f[6] < 0.2) record["score"] = record["score"].get<double>() / 2, detections.push_back(record);
    }
    REQUIRE(detections.size() == expected.at("detections").get<size_t>());
    check_figures(evaluate_files(truth, detections, IouKind::kBox).summary, expected.at("bbox"));
    check_figures(evaluate_files(truth, detections, IouKind::kMask).summary, expected.at("segm"));
  }
}

TEST_CASE("coco eval: perfect, absent and empty") {
  Scene s = random_scene(1, false);
  for (auto& t : s.truths) t.crowd = false;
  // Objects of equal class and place would compete; keep one of each.
  std::sort(s.truths.begin(), s.truths.end(),
            [](auto& a, auto& b) { return std::tie(a.image, a.category, a.x, a.y) < std::tie(b.image, b.category, b.x, b.y); });
  s.detections = s.truths;
  for (size_t i = 0; i < s.detections.size(); ++i) s.detections[i].score = 0.5 + 0.001 * double(i);
  for (IouKind kind : {IouKind::kBox, IouKind::kMask}) {
    const CocoReport r = s.evaluate(kind);
    CHECK(r.summary.map() == doctest::Approx(1).epsilon(1e-12));
    CHECK(r.summary.map75() == doctest::Approx(1).epsilon(1e-12));
    CHECK(r.summary.ar100() == 1);
    CHECK((r.precision == 1 && r.recall == 1 && r.f1 == 1));
    CHECK(r.confidence == 0);
    Scene none = s;
    none.detections.clear();
    CHECK(none.evaluate(kind).summary.map() == 0);
    CHECK(none.evaluate(kind).f1 == 0);
    none.truths.clear();
    CHECK(none.evaluate(kind).summary.map() == -1);
    none.detections = s.detections;
    CHECK(none.evaluate(kind).summary.map() == -1);
  }
}

TEST_CASE("coco eval: small, medium and large; classes; text") {
  Scene s;
  s.truths = {{0, 0, 0, 5, 5, 10, 10, false},
              {0, 0, 0, 40, 20, 50, 50, false},
              {1, 1, 0, 0, 0, 110, 95, false},
              {1, 1, 0, 3, 3, 20, 20, true}};
  s.detections = {{0, 0, .9, 5, 5, 10, 10, false}, {1, 1, .4, 0, 0, 110, 95, false}};
  const CocoReport r = s.evaluate(IouKind::kMask);
  CHECK(r.summary.maps() == doctest::Approx(1));
  CHECK(r.summary.mapm() == 0);
  CHECK(r.summary.mapl() == doctest::Approx(1));
  CHECK(r.summary.arm() == 0);
  REQUIRE(r.classes.size() == 3);
  CHECK((r.classes[0].category_id == 1 && r.classes[1].category_id == 3 && r.classes[2].category_id == 5));
  CHECK((r.classes[0].instances == 2 && r.classes[0].images == 1 && r.classes[0].recall == 0.5 && r.classes[0].precision == 1));
  CHECK(r.classes[0].ap == doctest::Approx(51.0 / 101));
  CHECK((r.classes[1].ap == -1 && r.classes[1].instances == 0));
  CHECK((r.classes[2].instances == 1 && r.classes[2].ap50 == doctest::Approx(1)));
  CHECK(r.summary.map50() == doctest::Approx((1 + 51.0 / 101) / 2));
  const std::string text = to_string(r.summary);
  CHECK(text.starts_with(" Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.752\n"));
  CHECK(text.find(" Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 0.750\n") != std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') == 12);
}

TEST_CASE("coco eval: an object of 32 x 32 pixels is small and medium, one of 96 x 96 medium and large") {
  Scene s;
  s.truths = {{0, 0, 0, 5, 5, 32, 32, false}};
  s.detections = {{0, 0, .9, 5, 5, 32, 32, false}};
  const CocoSummary small = s.evaluate(IouKind::kBox).summary;
  CHECK((small.maps() == doctest::Approx(1) && small.mapm() == doctest::Approx(1) && small.mapl() == -1));
  s.truths[0].x = s.truths[0].y = s.detections[0].x = s.detections[0].y = 0;
  s.truths[0].w = s.truths[0].h = s.detections[0].w = s.detections[0].h = 96;
  const CocoSummary large = s.evaluate(IouKind::kBox).summary;
  CHECK((large.maps() == -1 && large.mapm() == doctest::Approx(1) && large.mapl() == doctest::Approx(1)));
}

TEST_CASE("coco eval: threads, order of images and order of records") {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    Scene s = random_scene(seed, seed % 2 == 1);
    for (IouKind kind : {IouKind::kBox, IouKind::kMask}) {
      set_compute_threads(4);
      const CocoReport four = s.evaluate(kind);
      set_compute_threads(1);
      CHECK(same(four, s.evaluate(kind)));
      CHECK(same(four, s.evaluate(kind, 100)));
      if (seed % 2 == 0) {  // without ties the order of detections says nothing
        Scene shuffled = s;
        std::reverse(shuffled.detections.begin(), shuffled.detections.end());
        CHECK(same(four, shuffled.evaluate(kind)));
      }
      CHECK((four.summary.map() > 0 && four.summary.map() < 1));
    }
  }
}

TEST_CASE("coco eval: masks of classes that an image lacks do not matter") {
  Scene s = random_scene(23, false);
  for (size_t i = 0; i < s.detections.size(); i += 3) s.detections[i].category = (s.detections[i].category + 1) % 3;
  CHECK(!std::all_of(s.detections.begin(), s.detections.end(), [&](const Scene::Item& d) { return s.is_compared(d); }));
  const CocoReport all = s.evaluate(IouKind::kMask);
  CHECK(all.summary.map() > 0.05);
  s.only_compared = true;
  CHECK(same(s.evaluate(IouKind::kMask), all));
}

TEST_CASE("coco eval: at most 100 detections; the lowest scores are the ones left out") {
  Scene s;
  s.truths = {{0, 0, 0, 5, 5, 30, 30, false}};
  for (int i = 0; i < 150; ++i) s.detections.push_back({0, 0, 0.5 + 0.001 * i, 70, 70, 20, 20, false});
  s.detections.push_back({0, 0, 0.1, 5, 5, 30, 30, false});
  CHECK(s.evaluate(IouKind::kBox).summary.ar100() == 0);
  s.detections.back().score = 0.9;
  CHECK(s.evaluate(IouKind::kBox).summary.ar1() == 1);
}

TEST_CASE("coco eval: annotation 0 is never credited") {
  for (int64_t id : {0, 1}) {
    CocoEval eval({{1, "a"}});
    const int64_t image = eval.add_image(1, 100, 120);
    eval.add_truth({image, 0, false, 900, {5, 5, 30, 30}, id});
    eval.add_detection({image, 0, 0.9, {5, 5, 30, 30}, 900});
    CHECK(eval.evaluate(IouKind::kBox).summary.map() == doctest::Approx(id == 0 ? 0 : 1));
    // What finds it counts as made up, before the other that is found.
    eval.add_truth({image, 0, false, 900, {60, 50, 30, 30}, 2});
    eval.add_detection({image, 0, 0.8, {60, 50, 30, 30}, 900});
    CHECK(eval.evaluate(IouKind::kBox).summary.map() == doctest::Approx(id == 0 ? 0.5 * 51 / 101 : 1));
  }
}

TEST_CASE("coco eval: what cannot be evaluated is refused") {
  CHECK_THROWS_AS(CocoEval({{1, "a"}, {1, "b"}}), Error);
  CocoEval eval({{1, "a"}});
  eval.add_image(1, 10, 10);
  CHECK_THROWS_AS(eval.add_image(1, 10, 10), Error);
  CHECK_THROWS_AS(eval.add_detection({0, 0, std::nan(""), {}, 0}), Error);
  CHECK_THROWS_AS(eval.add_detection({1, 0, 0.5, {}, 0}), Error);
  CHECK_THROWS_AS(eval.add_truth({0, 1, false, 1, {}}), Error);
  const Rle other{5, 5, {25}};
  CHECK_THROWS_AS(eval.add_truth({0, 0, false, 1, {}}, &other), Error);
  eval.add_detection({0, 0, 0.5, {}, 0});
  CHECK_THROWS_AS(eval.evaluate(IouKind::kMask), Error);

  const nlohmann::json gt{{"images", {{{"id", 1}, {"height", 10}, {"width", 10}, {"file_name", "1.jpg"}}}},
                          {"categories", {{{"id", 1}, {"name", "a"}}}},
                          {"annotations", {{{"id", 1}, {"image_id", 1}, {"category_id", 1}, {"bbox", {1, 1, 4, 4}}}}}};
  const nlohmann::json dt{{{"image_id", 1}, {"category_id", 1}, {"score", 0.5}, {"bbox", {1, 1, 4, 4}}}};
  CHECK_THROWS_AS(evaluate_files(gt, dt, IouKind::kBox), Error);  // no area
  nlohmann::json with_area = gt, unknown = dt;
  with_area["annotations"][0]["area"] = 16;
  CHECK(evaluate_files(with_area, dt, IouKind::kBox).summary.map() == doctest::Approx(1));
  unknown[0]["category_id"] = 2;  // left out, as in pycocotools
  CHECK(evaluate_files(with_area, unknown, IouKind::kBox).summary.map() == 0);
}
