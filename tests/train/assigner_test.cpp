#include "yolo/train/assigner.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/golden.h"

using namespace tessera;

namespace {

std::vector<float> floats(const Tensor& t) { return t.to(DType::kF32).to_vector<float>(); }

// A single ground truth on a 4 x 1 strip of anchors with stride 8, all predictions equal to it.
struct Strip {
  Anchors anchors;
  PaddedTargets targets;
  explicit Strip(std::vector<std::array<float, 4>> boxes) {
    for (int i = 0; i < 4; ++i) {
      anchors.x.push_back(8.0f * float(i) + 4);
      anchors.y.push_back(4);
      anchors.stride.push_back(8);
    }
    anchors.first = {0, 4, 4, 4};
    targets.images = 1;
    targets.width = int64_t(boxes.size());
    targets.classes.assign(boxes.size(), 0);
    targets.valid.assign(boxes.size(), 1);
    targets.source.assign(boxes.size(), 0);
    targets.boxes = std::move(boxes);
  }
};

}  // namespace

TEST_CASE("assignment equals the original's in 200 random cases") {
  const auto golden = testing::read_safetensors(testing::golden_dir() / "assigner.safetensors");
  const std::vector<float> anchor = floats(golden.at("anchors"));
  Anchors anchors;
  for (size_t i = 0; i < anchor.size(); i += 2) {
    anchors.x.push_back(anchor[i]);
    anchors.y.push_back(anchor[i + 1]);
    anchors.stride.push_back(0);  // not looked at
  }
  const int64_t count = int64_t(anchors.x.size());
  anchors.first = {0, 64, 80, 84};
  int positives = 0;
  for (int k = 0; k < 200; ++k) {
    CAPTURE(k);
    const auto entry = [&](const char* name) { return golden.at(fmt::format("{}.{}", k, name)); };
    const Tensor score_tensor = entry("scores");
    const std::vector<float> scores = floats(score_tensor), boxes = floats(entry("boxes"));
    const std::vector<float> gts = floats(entry("gts")), labels = floats(entry("labels"));
    const int64_t nc = score_tensor.size(2);
    PaddedTargets targets;
    targets.images = score_tensor.size(0);
    targets.width = entry("labels").size(1);
    for (size_t i = 0; i < labels.size(); ++i) {
      targets.classes.push_back(int32_t(labels[i]));
      targets.boxes.push_back({gts[4 * i], gts[4 * i + 1], gts[4 * i + 2], gts[4 * i + 3]});
    }
    targets.valid = entry("valid").to_vector<uint8_t>();
    const Predictions predictions{[&](int64_t image, int64_t a, int32_t c) { return scores[size_t((image * count + a) * nc + c)]; },
                                  [&](int64_t image, int64_t a) {
                                    const float* b = boxes.data() + (image * count + a) * 4;
                                    return std::array<float, 4>{b[0], b[1], b[2], b[3]};
                                  }};
    std::vector<uint8_t> fg(size_t(targets.images * count), 0), index(fg.size(), 0);
    std::vector<float> weight(fg.size(), 0);
    for (const Positive& p : assign_targets(targets, anchors, predictions)) {
      const size_t at = size_t(p.image * count + p.anchor);
      fg[at] = 1;
      index[at] = uint8_t(p.target);
      weight[at] = p.score;
      ++positives;
    }
    CHECK(fg == entry("fg").to_vector<uint8_t>());
    CHECK(index == entry("gt_index").to_vector<uint8_t>());
    const std::vector<float> expected = floats(entry("weight"));
    for (size_t i = 0; i < weight.size(); ++i) CHECK(weight[i] == doctest::Approx(expected[i]).epsilon(1e-5));
  }
  CHECK(positives > 1000);
}

TEST_CASE("ties and zero metrics") {
  const Predictions perfect{[](int64_t, int64_t, int32_t) { return 0.25f; },
                            [](int64_t, int64_t) {
                              return std::array<float, 4>{0, 0, 32, 8};
                            }};
  SUBCASE("equal metrics: the lowest index first") {
    const Strip strip({{0, 0, 32, 8}});
    const auto positives = assign_targets(strip.targets, strip.anchors, perfect, {2, 0.5f, 6.0f});
    REQUIRE(positives.size() == 2);
    CHECK(positives[0].anchor == 0);
    CHECK(positives[1].anchor == 1);
    CHECK(positives[0].score == doctest::Approx(1.0));
  }
  SUBCASE("equal overlaps: the first ground truth") {
    const Strip strip({{0, 0, 32, 8}, {0, 0, 32, 8}});
    for (const Positive& p : assign_targets(strip.targets, strip.anchors, perfect)) CHECK(p.target == 0);
  }
  SUBCASE("zero metrics fill the places from index 0 on, inside the box they become positives without weight") {
    const Predictions nothing{[](int64_t, int64_t, int32_t) { return 0.0f; }, perfect.box};
    const Strip strip({{8, 0, 32, 8}});  // anchors 1, 2, 3 are inside
    const auto positives = assign_targets(strip.targets, strip.anchors, nothing, {3, 0.5f, 6.0f});
    REQUIRE(positives.size() == 2);  // place 0 goes to anchor 0, outside
    CHECK(positives[0].anchor == 1);
    CHECK(positives[1].anchor == 2);
    CHECK(positives[0].score == 0.0f);
  }
  SUBCASE("contested without overlap: ground truth 0, even from outside its box") {
    const Predictions elsewhere{[](int64_t, int64_t, int32_t) { return 0.5f; },
                                [](int64_t, int64_t) {
                                  return std::array<float, 4>{500, 500, 501, 501};
                                }};
    const Strip strip({{0, 0, 1, 1}, {0, 0, 32, 8}, {0, 0, 31, 8}});
    const auto positives = assign_targets(strip.targets, strip.anchors, elsewhere);
    REQUIRE(positives.size() == 4);
    for (const Positive& p : positives) CHECK(p.target == 0);
  }
  SUBCASE("border anchors are outside, invalid boxes have no positives") {
    Strip strip({{4, 0, 20, 8}});
    CHECK(assign_targets(strip.targets, strip.anchors, perfect).size() == 1);  // x = 12 only
    strip.targets.valid[0] = 0;
    CHECK(assign_targets(strip.targets, strip.anchors, perfect).empty());
  }
}

TEST_CASE("CIoU of the specification's example") {
  const std::array<float, 4> a{1, 2, 5, 9}, b{2, 1, 8, 6};
  CHECK(ciou(a, b, box_angle(a), box_angle(b)) == doctest::Approx(0.186702391).epsilon(1e-6));
}
