#include "yolo/eval/original_ap.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "tests/eval/golden_curve.h"
#include "tests/support/golden.h"

using namespace tessera;
using tessera::testing::check_curve;
using tessera::testing::golden_dir;
using tessera::testing::read_json;

namespace {

std::vector<BoxXyxy> boxes_of(const nlohmann::json& rows) {
  std::vector<BoxXyxy> boxes;
  for (const auto& r : rows) boxes.push_back({r[0], r[1], r[2], r[3]});
  return boxes;
}

// Passed all thresholds below `passed` tenths.
uint16_t bits(int passed) { return uint16_t((1 << passed) - 1); }

// Of an "ap" case. There are no ties: the order must not matter.
std::vector<ApDetection> detections_of(const nlohmann::json& c) {
  std::vector<ApDetection> detections;
  for (size_t i = 0; i < c.at("passed").size(); ++i) {
    detections.push_back({c.at("confidence")[i], c.at("predicted")[i], bits(c.at("passed")[i])});
  }
  std::shuffle(detections.begin(), detections.end(), std::mt19937(4));
  return detections;
}

}  // namespace

TEST_CASE("original AP: numbers of the specification") {
  const std::vector<int32_t> four(4, 0), two(2, 0), both{0, 1};
  const std::vector<ApDetection> all{{.9f, 0, bits(10)}, {.8f, 0, bits(10)}, {.7f, 0, bits(10)}, {.6f, 0, bits(10)}};
  CHECK(original_ap(all, four).map == doctest::Approx(0.995).epsilon(1e-12));
  const std::vector<ApDetection> half{{.9f, 0, bits(10)}};
  CHECK(original_ap(half, two).map == doctest::Approx(0.75).epsilon(1e-12));

  const std::vector<ApDetection> mixed{{.9f, 0, bits(10)}, {.8f, 0, 0}, {.7f, 0, bits(10)}, {.6f, 0, bits(5)}};
  const OriginalAp m = original_ap(mixed, four);
  for (size_t t = 0; t < 5; ++t) CHECK(m.classes[0].ap[t] == doctest::Approx(0.7175).epsilon(1e-9));
  for (size_t t = 5; t < 10; ++t) CHECK(m.classes[0].ap[t] == doctest::Approx(0.5391666667).epsilon(1e-9));
  CHECK(m.precision == doctest::Approx(0.75));
  CHECK(m.recall == doctest::Approx(0.75));

  const OriginalAp one_without = original_ap(half, both);
  CHECK(one_without.classes[0].map() == doctest::Approx(0.995));
  CHECK(one_without.classes[1].map() == 0);
  CHECK((one_without.classes[0].precision == 1 && one_without.classes[1].precision == 0));
  CHECK((one_without.classes[0].recall == doctest::Approx(1) && one_without.classes[1].recall == 0));
  CHECK(original_ap(all, {}).classes.empty());
}

TEST_CASE("original AP: matching of the specification") {
  const std::vector<int32_t> one{0}, two{0, 0};
  const float single[] = {.6f, .9f};
  auto tp = match_detections(single, one, two);
  CHECK(tp[0] == 0b0000000111);
  CHECK(tp[1] == 0b0111111000);  // .65 to .90 as float32: .9 passes its own threshold
  const float square[] = {.6f, .9f, .7f, .55f};
  tp = match_detections(square, two, two);
  CHECK(tp[0] == 0b0000011111);
  CHECK(tp[1] == 0b0111111111);
  const std::vector<int32_t> other{1, 1};
  tp = match_detections(square, two, other);
  CHECK((tp[0] == 0 && tp[1] == 0));
}

TEST_CASE("original AP: golden matches and confusion matrices") {
  const auto golden = read_json(golden_dir() / "original_ap.json");
  for (const auto& c : golden.at("match")) {
    const auto labels = boxes_of(c.at("labels")), detections = boxes_of(c.at("detections"));
    const auto label_classes = c.at("label_classes").get<std::vector<int32_t>>();
    const auto classes = c.at("detection_classes").get<std::vector<int32_t>>();
    const auto iou = box_iou(labels, detections);
    for (size_t l = 0; l < labels.size(); ++l) {
      for (size_t d = 0; d < detections.size(); ++d) {
        CHECK(iou[l * detections.size() + d] == doctest::Approx(c.at("iou")[l][d].get<double>()).epsilon(1e-6));
      }
    }
    const auto tp = match_detections(iou, label_classes, classes);
    auto compared = iou;  // overlaps of other classes do not matter
    for (size_t i = 0; i < compared.size(); ++i) {
      if (label_classes[i / classes.size()] != classes[i % classes.size()]) compared[i] = 0;
    }
    CHECK(match_detections(compared, label_classes, classes) == tp);
    for (size_t d = 0; d < detections.size(); ++d) {
      std::string text;
      for (int t = 0; t < 10; ++t) text += tp[d] >> t & 1 ? '1' : '0';
      CHECK(text == c.at("tp")[d].get<std::string>());
    }
  }
  for (const auto& c : golden.at("confusion")) {
    const auto& m = golden.at("match")[c.at("match").get<size_t>()];
    ConfusionMatrix matrix(2);
    matrix.add(boxes_of(m.at("labels")), m.at("label_classes").get<std::vector<int32_t>>(), boxes_of(m.at("detections")),
               m.at("detection_classes").get<std::vector<int32_t>>(), c.at("confidence").get<std::vector<float>>());
    for (int32_t row = 0; row < 3; ++row) {
      for (int32_t column = 0; column < 3; ++column) {
        CHECK(matrix.at(row, column) == c.at("matrix")[size_t(row)][size_t(column)].get<int64_t>());
      }
    }
  }
}

TEST_CASE("original AP: golden figures") {
  const auto golden = read_json(golden_dir() / "original_ap.json");
  for (const auto& c : golden.at("ap")) {
    const OriginalAp ap = original_ap(detections_of(c), c.at("target").get<std::vector<int32_t>>());
    if (c.at("classes").empty()) {
      CHECK(ap.map == 0);
      continue;
    }
    REQUIRE(ap.classes.size() == c.at("classes").size());
    for (size_t k = 0; k < ap.classes.size(); ++k) {
      const auto& expected = c.at("classes")[k];
      CHECK(ap.classes[k].class_id == expected.at("class").get<int32_t>());
      CHECK(ap.classes[k].precision == doctest::Approx(expected.at("p").get<double>()).epsilon(1e-9));
      CHECK(ap.classes[k].recall == doctest::Approx(expected.at("r").get<double>()).epsilon(1e-9));
      CHECK(ap.classes[k].f1 == doctest::Approx(expected.at("f1").get<double>()).epsilon(1e-9));
      for (size_t t = 0; t < 10; ++t)
        CHECK(ap.classes[k].ap[t] == doctest::Approx(expected.at("ap")[t].get<double>()).epsilon(1e-9));
    }
    const auto& mean = c.at("mean");
    CHECK(ap.precision == doctest::Approx(mean.at("p").get<double>()).epsilon(1e-9));
    CHECK(ap.recall == doctest::Approx(mean.at("r").get<double>()).epsilon(1e-9));
    CHECK(ap.map50 == doctest::Approx(mean.at("map50").get<double>()).epsilon(1e-9));
    CHECK(ap.map75 == doctest::Approx(mean.at("map75").get<double>()).epsilon(1e-9));
    CHECK(ap.map == doctest::Approx(mean.at("map").get<double>()).epsilon(1e-9));
  }
}

TEST_CASE("original AP: golden curves, those that the original returns and the means that it draws") {
  const auto cases = read_json(golden_dir() / "original_ap.json").at("ap");
  const auto golden = read_json(golden_dir() / "curves.json");
  const auto& points = golden.at("points");
  for (const auto& expected : golden.at("original")) {
    CAPTURE(expected.at("ap").get<int>());
    const auto& c = cases[expected.at("ap").get<size_t>()];
    const auto targets = c.at("target").get<std::vector<int32_t>>();
    DetectionCurves curves;
    const OriginalAp ap = original_ap(detections_of(c), targets, &curves);
    CHECK(ap.map == original_ap(detections_of(c), targets).map);
    REQUIRE(curves.classes.size() == expected.at("classes").size());
    bool all_detected = true;
    for (size_t k = 0; k < curves.classes.size(); ++k) {
      const auto& row = curves.classes[k];
      const auto& e = expected.at("classes")[k];
      CHECK(row.class_id == e.at("class").get<int64_t>());
      CHECK(row.ap50 == ap.classes[k].ap[0]);
      check_curve(row.precision, e.at("p"), points);
      check_curve(row.recall, e.at("r"), points);
      check_curve(row.f1, e.at("f1"), points);
      all_detected = all_detected && !e.at("pr").is_null();
      if (e.at("pr").is_null()) {
        CHECK(row.precision_at_recall == std::vector<double>(1000, 0));
      } else {
        check_curve(row.precision_at_recall, e.at("pr"), points);
      }
    }
    const auto& mean = expected.at("mean");
    check_curve(curves.mean.precision, mean.at("p"), points);
    check_curve(curves.mean.recall, mean.at("r"), points);
    check_curve(curves.mean.f1, mean.at("f1"), points);
    if (all_detected) check_curve(curves.mean.precision_at_recall, mean.at("pr"), points);
    const auto best = std::max_element(curves.mean.f1.begin(), curves.mean.f1.end()) - curves.mean.f1.begin();
    CHECK(fmt::format("all classes {:.2f} at {:.3f}", curves.mean.f1[size_t(best)], curves.x[size_t(best)]) ==
          mean.at("f1").at("legend"));
    CHECK(fmt::format("all classes {:.3f} mAP@0.5", curves.mean.ap50) == mean.at("pr").at("legend"));
  }
  DetectionCurves none;
  original_ap(detections_of(cases[0]), {}, &none);
  CHECK((none.classes.empty() && none.mean.f1.empty()));
}

TEST_CASE("original AP: normalised confusion matrix") {
  ConfusionMatrix m(1);
  const std::vector<BoxXyxy> labels{{0, 0, 10, 10}, {50, 50, 60, 60}}, found{{0, 0, 10, 9}};
  const std::vector<int32_t> zero2{0, 0}, zero{0};
  const std::vector<float> sure{0.9f};
  m.add(labels, zero2, found, zero, sure);
  CHECK(m.normalized(0, 0) == doctest::Approx(0.5));
  CHECK(m.normalized(1, 0) == doctest::Approx(0.5));
  CHECK(m.normalized(0, 1) == 0);
  ConfusionMatrix of_all_ranks(1);
  of_all_ranks.add(labels, zero2, {}, {}, {});
  of_all_ranks.add(m.counts());
  ConfusionMatrix limit(1);
  limit.add(labels, zero2, found, zero, std::vector<float>{0.25f});  // what is as sure as the limit does not count
  CHECK((limit.at(0, 0) == 0 && limit.at(1, 0) == 2));
  CHECK(of_all_ranks.at(0, 0) == 1);
  CHECK(of_all_ranks.at(1, 0) == 3);
  CHECK(of_all_ranks.normalized(1, 0) == doctest::Approx(0.75));
}
