// The assigner on decoded predictions, on any device: the 200 recorded cases of the original, and cases of ties.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>

#include "tensor/ops/assign.h"
#include "tests/support/golden.h"

namespace tessera::testing {

// Scores and boxes of all anchors of all images, level after level in each, as the maps that the assigner takes.
inline ops::AnchorMaps decoded_maps(const Tensor& scores, const Tensor& boxes,
                                    const std::array<std::array<int64_t, 2>, kAnchorLevels>& sizes,
                                    const std::array<float, kAnchorLevels>& strides) {
  ops::AnchorMaps maps;
  maps.decoded = true;
  maps.strides = strides;
  int64_t first = 0;
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    const auto [h, w] = sizes[i];
    const auto level = [&](const Tensor& all) {
      return all.narrow(1, first, h * w).contiguous().view({all.size(0), h, w, all.size(2)});
    };
    maps.box[i] = level(boxes);
    maps.cls[i] = level(scores);
    first += h * w;
  }
  return maps;
}

struct Assigned {
  std::vector<int32_t> target;  // (N, anchors)
  std::vector<float> score;
};

// On `device`; the result in the order of the images.
inline Assigned assign_on(Device device, ops::AnchorMaps maps, const Tensor& boxes, const Tensor& classes,
                          const AssignParams& params = {}) {
  int64_t anchors = 0;
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    maps.box[i] = maps.box[i].to(device);
    maps.cls[i] = maps.cls[i].to(device);
    anchors += maps.box[i].size(1) * maps.box[i].size(2);
  }
  const ops::Assignment a = ops::assign(maps, boxes.to(device), classes.to(device), params);
  const auto target = a.target.to_vector<int32_t>();
  const auto score = a.score.to_vector<float>();
  const int64_t images = boxes.size(0);
  Assigned out{std::vector<int32_t>(target.size()), std::vector<float>(score.size())};
  int64_t row = 0, first = 0;
  for (const Tensor& map : maps.box) {
    const int64_t cells = map.size(1) * map.size(2);
    for (int64_t image = 0; image < images; ++image) {
      std::copy_n(target.begin() + row, cells, out.target.begin() + image * anchors + first);
      std::copy_n(score.begin() + row, cells, out.score.begin() + image * anchors + first);
      row += cells;
    }
    first += cells;
  }
  return out;
}

inline void check_golden_assignment(Device device) {
  const TensorMap golden = read_safetensors(golden_dir() / "assigner.safetensors");
  const std::vector<float> anchors = golden.at("anchors").to(DType::kF32).to_vector<float>();
  constexpr std::array<std::array<int64_t, 2>, kAnchorLevels> kSizes{{{8, 8}, {4, 4}, {2, 2}}};
  constexpr std::array<float, kAnchorLevels> kStrides{8, 16, 32};
  // The anchors of the fixture are those of the grid.
  size_t i = 0;
  for (size_t level = 0; level < kAnchorLevels; ++level) {
    for (int64_t cell = 0; cell < kSizes[level][0] * kSizes[level][1]; ++cell) {
      REQUIRE(anchors[i++] == (float(cell % kSizes[level][1]) + 0.5f) * kStrides[level]);
      REQUIRE(anchors[i++] == (float(cell / kSizes[level][1]) + 0.5f) * kStrides[level]);
    }
  }
  REQUIRE(i == anchors.size());
  int positives = 0;
  for (int k = 0; k < 200; ++k) {
    CAPTURE(k);
    const auto entry = [&](const char* name) { return golden.at(fmt::format("{}.{}", k, name)); };
    const auto floats = [&](const char* name) { return entry(name).to(DType::kF32).contiguous(); };
    const Tensor boxes = floats("gts"), labels = floats("labels");
    const auto valid = entry("valid").to_vector<uint8_t>();
    const Tensor classes = Tensor::empty({boxes.size(0), boxes.size(1)}, DType::kI32);
    for (size_t j = 0; j < valid.size(); ++j) classes.data<int32_t>()[j] = valid[j] ? int32_t(labels.data<float>()[j]) : -1;
    const Assigned got = assign_on(device, decoded_maps(floats("scores"), floats("boxes"), kSizes, kStrides), boxes, classes);
    const auto fg = entry("fg").to_vector<uint8_t>(), index = entry("gt_index").to_vector<uint8_t>();
    const auto weight = floats("weight").to_vector<float>();
    REQUIRE(got.target.size() == fg.size());
    for (size_t a = 0; a < fg.size(); ++a) {
      CHECK(got.target[a] == (fg[a] ? int32_t(index[a]) : -1));
      CHECK(got.score[a] == doctest::Approx(weight[a]).epsilon(1e-5));
      positives += fg[a];
    }
  }
  CHECK(positives > 1000);
}

// One image of 4 x 1 anchors with stride 8, all with the same prediction.
struct Strip {
  Device device;
  ops::AnchorMaps maps;
  Tensor boxes, classes;

  Strip(Device where, float score, std::array<float, 4> box, const std::vector<std::array<float, 4>>& objects) : device(where) {
    const Tensor scores = Tensor::full({1, 4, 1}, score), predicted = Tensor::empty({1, 4, 4});
    for (int64_t i = 0; i < 16; ++i) predicted.data<float>()[i] = box[size_t(i % 4)];
    maps = decoded_maps(scores, predicted, {{{1, 4}, {0, 0}, {0, 0}}}, {8, 16, 32});
    boxes = Tensor::empty({1, int64_t(objects.size()), 4});
    for (int64_t i = 0; i < boxes.numel(); ++i) boxes.data<float>()[i] = objects[size_t(i / 4)][size_t(i % 4)];
    classes = Tensor::zeros({1, int64_t(objects.size())}, DType::kI32);
  }
  Assigned run(const AssignParams& params = {}) const { return assign_on(device, maps, boxes, classes, params); }
};

inline void check_assignment_of_ties(Device device) {
  using Targets = std::vector<int32_t>;
  constexpr std::array<float, 4> kAll{0, 0, 32, 8};
  {  // equal metrics: the lowest index first
    const Assigned a = Strip(device, 0.25f, kAll, {kAll}).run({2, 0.5f, 6.0f});
    CHECK(a.target == Targets{0, 0, -1, -1});
    CHECK(a.score[0] == doctest::Approx(1.0));
    CHECK(a.score[2] == 0.0f);
  }
  {  // equal overlaps: the first object
    CHECK(Strip(device, 0.25f, kAll, {kAll, kAll}).run().target == Targets{0, 0, 0, 0});
  }
  {  // metrics of 0 fill the places from index 0 on; inside the box they become positives without weight, place 0 goes outside
    const Assigned a = Strip(device, 0.0f, kAll, {{8, 0, 32, 8}}).run({3, 0.5f, 6.0f});
    CHECK(a.target == Targets{-1, 0, 0, -1});
    CHECK(a.score == std::vector<float>(4, 0.0f));
  }
  {  // contested without overlap: object 0, even from outside its box
    const Assigned a = Strip(device, 0.5f, {500, 500, 501, 501}, {{0, 0, 1, 1}, {0, 0, 32, 8}, {0, 0, 31, 8}}).run();
    CHECK(a.target == Targets{0, 0, 0, 0});
  }
  {  // anchors on the border are outside
    Strip strip(device, 0.25f, kAll, {{4, 0, 20, 8}});
    CHECK(strip.run().target == Targets{-1, 0, -1, -1});
    strip.classes.fill(-1);  // no object, no positives
    CHECK(strip.run().target == Targets{-1, -1, -1, -1});
  }
}

// One object over maps of more anchors than a block of threads holds at once, with many equal metrics among them.
inline void check_assignment_of_many(Device device) {
  constexpr int64_t kSide = 72;
  const Tensor scores = Tensor::empty({1, kSide * kSide, 1}), boxes = Tensor::empty({1, kSide * kSide, 4});
  for (int64_t i = 0; i < kSide * kSide; ++i) {
    scores.data<float>()[i] = i == 5100 ? 0.75f : i % 700 == 699 ? 0.5f : 0.25f;
    for (int64_t k = 0; k < 4; ++k) boxes.data<float>()[4 * i + k] = k < 2 ? 0.0f : 8.0f * kSide;
  }
  const ops::AnchorMaps maps = decoded_maps(scores, boxes, {{{kSide, kSide}, {0, 0}, {0, 0}}}, {8, 16, 32});
  const Tensor object = Tensor::from_floats({0, 0, 8.0f * kSide, 8.0f * kSide}, {1, 1, 4});
  const Assigned a = assign_on(device, maps, object, Tensor::zeros({1, 1}, DType::kI32));
  std::vector<int64_t> taken;
  for (size_t i = 0; i < a.target.size(); ++i) {
    if (a.target[i] == 0) taken.push_back(int64_t(i));
  }
  CHECK(taken == std::vector<int64_t>{0, 1, 699, 1399, 2099, 2799, 3499, 4199, 4899, 5100});
}

}  // namespace tessera::testing
