#include "yolo/train/loss.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tensor/backend.h"
#include "tests/support/golden.h"

using namespace tessera;

namespace {

using testing::TensorMap;

const TensorMap& fixture() {
  static const TensorMap map = testing::read_safetensors(testing::golden_dir() / "loss.safetensors");
  return map;
}

// The raw outputs of a case of loss.safetensors as leaves with gradients.
struct Leaves {
  RawOutputs outputs;

  explicit Leaves(const std::string& name) {
    int64_t first = 0;
    const Tensor coefficients = fixture().at(name + ".coefficients");
    for (size_t i = 0; i < kAnchorLevels; ++i) {
      const Tensor& map = fixture().at(fmt::format("{}.map{}", name, i));
      const int64_t n = map.size(0), h = map.size(1), w = map.size(2);
      outputs.box[i] = Variable(map.narrow(3, 0, kBoxLogits).contiguous(), true);
      outputs.cls[i] = Variable(map.narrow(3, kBoxLogits, map.size(3) - kBoxLogits).contiguous(), true);
      outputs.coefficients[i] =
          Variable(coefficients.narrow(1, first, h * w).contiguous().view({n, h, w, coefficients.size(2)}), true);
      first += h * w;
    }
    outputs.prototypes = Variable(fixture().at(name + ".prototypes").clone(), true);
  }
};

Batch batch_of(const std::string& name, bool overlap) {
  Batch batch;
  const auto image = fixture().at(name + ".batch_idx").to_vector<int32_t>();
  const auto cls = fixture().at(name + ".cls").to_vector<int32_t>();
  const auto boxes = fixture().at(name + ".bboxes").to_vector<float>();
  for (size_t i = 0; i < image.size(); ++i) {
    batch.target_image.push_back(image[i]);
    batch.targets.push_back({cls[i], {boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]}});
  }
  batch.masks = fixture().at(name + ".masks");
  batch.overlap = overlap;
  return batch;
}

// ||got - expected|| / ||expected||; an undefined gradient is zero.
double relative(const Variable& leaf, const Tensor& expected) {
  const auto want = expected.to_vector<float>();
  const auto got = leaf.grad().defined() ? leaf.grad().to_vector<float>() : std::vector<float>(want.size(), 0.0f);
  REQUIRE(got.size() == want.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(double(got[i]) - want[i], 2);
    norm += double(want[i]) * want[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

void check_item(double got, double expected) {
  if (expected == 0)
    CHECK(got == 0);
  else
    CHECK(std::abs(got / expected - 1) <= 1e-5);
}

}  // namespace

TEST_CASE("items and gradients equal the original's on raw outputs") {
  const nlohmann::json json = testing::read_json(testing::golden_dir() / "loss.json");
  for (Backend* backend : available_backends()) {
    if (backend->device_kind() != Device::Kind::kCpu) continue;
    CAPTURE(backend->name());
    const BackendGuard use(*backend);
    for (const auto& [name, about] : json.at("cases").items()) {
      if (name == "decode") continue;
      CAPTURE(name);
      Leaves leaves(name);
      const LossResult result = SegmentationLoss()(leaves.outputs, batch_of(name, about.at("overlap")));
      const LossReport report = result.report();
      CHECK(report.positives == about.at("positives"));
      check_item(report.target_score_sum, about.at("target_score_sum"));
      check_item(report.items.box, about.at("items")[0]);
      check_item(report.items.seg, about.at("items")[1]);
      check_item(report.items.cls, about.at("items")[2]);
      check_item(report.items.dfl, about.at("items")[3]);
      check_item(result.total.data().item(), about.at("total"));
      result.total.backward();
      int64_t first = 0;
      const Tensor dcoefficients = fixture().at(name + ".dcoefficients");
      for (size_t i = 0; i < kAnchorLevels; ++i) {
        const Tensor& dmap = fixture().at(fmt::format("{}.dmap{}", name, i));
        const int64_t rows = dmap.size(1) * dmap.size(2);
        CHECK(relative(leaves.outputs.box[i], dmap.narrow(3, 0, kBoxLogits)) <= 1e-4);
        CHECK(relative(leaves.outputs.cls[i], dmap.narrow(3, kBoxLogits, dmap.size(3) - kBoxLogits)) <= 1e-5);
        CHECK(relative(leaves.outputs.coefficients[i], dcoefficients.narrow(1, first, rows)) <= 1e-5);
        first += rows;
      }
      CHECK(relative(leaves.outputs.prototypes, fixture().at(name + ".dprototypes")) <= 1e-5);
    }
  }
}

TEST_CASE("numbers of the specification's example") {
  Leaves leaves("example");
  const LossResult result = SegmentationLoss()(leaves.outputs, batch_of("example", true));
  const LossReport r = result.report();
  CHECK(r.items.box == doctest::Approx(6.529651).epsilon(1e-6));
  CHECK(r.items.seg == doctest::Approx(4.967325).epsilon(1e-6));
  CHECK(r.items.cls == doctest::Approx(53.608578).epsilon(1e-6));
  CHECK(r.items.dfl == doctest::Approx(4.630698).epsilon(1e-6));
  CHECK(result.total.data().item() == doctest::Approx(139.47250).epsilon(1e-6));
  CHECK(r.target_score_sum == doctest::Approx(2.329790).epsilon(1e-6));
  CHECK(r.positives == 29);
}

TEST_CASE("gains scale their terms; the mask term has the box gain") {
  Leaves leaves("single_class");
  const Batch batch = batch_of("single_class", true);
  const LossReport one = SegmentationLoss()(leaves.outputs, batch).report();
  const LossReport two = SegmentationLoss({15.0, 0.25, 6.0})(leaves.outputs, batch).report();
  CHECK(two.items.box == doctest::Approx(2 * one.items.box));
  CHECK(two.items.seg == doctest::Approx(2 * one.items.seg));
  CHECK(two.items.cls == doctest::Approx(0.5 * one.items.cls));
  CHECK(two.items.dfl == doctest::Approx(4 * one.items.dfl));
}

TEST_CASE("distances beyond the last bin are learnt just below it") {
  // One object of 512 x 512 pixels, of which anchors of stride 8 learn, 32 strides from its sides: their classes alone are likely.
  RawOutputs outputs;
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    const int64_t side = 64 >> i;
    Tensor box = Tensor::empty({1, side, side, kBoxLogits});
    for (int64_t k = 0; k < box.numel(); ++k) box.data<float>()[k] = 0.1f * float(k % kDistanceBins);
    outputs.box[i] = Variable(box);
    outputs.cls[i] = Variable(Tensor::full({1, side, side, 1}, i == 0 ? 3 : -60));
    outputs.coefficients[i] = Variable(Tensor::zeros({1, side, side, 32}));
  }
  outputs.prototypes = Variable(Tensor::zeros({1, 128, 128, 32}));
  Batch batch;
  batch.targets = {{0, {0.5f, 0.5f, 1, 1}}};
  batch.target_image = {0};
  batch.masks = Tensor::full({1, 128, 128}, 1, DType::kI32);
  batch.overlap = true;
  double sum = 0;
  for (int k = 0; k < int(kDistanceBins); ++k) sum += std::exp(0.1 * k);
  const auto cost = [&](int k) { return std::log(sum) - 0.1 * k; };  // cross-entropy of a bin
  const LossReport r = SegmentationLoss({7.5, 0.5, 1.5})(outputs, batch).report();
  CHECK(r.positives == 10);
  CHECK(r.items.dfl ==
        doctest::Approx(1.5 * (0.99 * cost(15) + 0.01 * cost(14)) * std::min(r.target_score_sum, 1.0)).epsilon(1e-5));
}

TEST_CASE("targets are padded image by image in batch order") {
  const std::vector<Target> targets = {{3, {0.5f, 0.5f, 0.5f, 0.25f}}, {1, {0, 0, 0, 0}}, {2, {0.25f, 0.75f, 0.5f, 0.5f}}};
  const PaddedTargets t = pad_targets(targets, {2, 0, 2}, true, 3, 64, 128);
  CHECK(t.boxes.shape() == Shape{3, 2, 4});
  CHECK(t.boxes.select(0, 2).to_vector<float>() == std::vector<float>{32, 24, 96, 40, 0, 32, 64, 64});
  CHECK(t.classes.to_vector<int32_t>() == std::vector<int32_t>{-1, -1, -1, -1, 3, 2});  // the box without extent is no object
  CHECK(t.mask_ids.to_vector<int32_t>() == std::vector<int32_t>{1, 0, 0, 0, 1, 2});
  CHECK(t.largest_class == 3);
  CHECK(pad_targets(targets, {2, 0, 2}, false, 3, 64, 128).mask_ids.to_vector<int32_t>() == std::vector<int32_t>{1, 0, 0, 0, 0, 2});
  const PaddedTargets wide = pad_targets(targets, {2, 0, 2}, true, 3, 64, 128, 5);
  CHECK(wide.classes.to_vector<int32_t>() == std::vector<int32_t>{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 3, 2, -1, -1, -1});
  CHECK_THROWS_WITH_AS(pad_targets(targets, {2, 0, 3}, true, 3, 64, 128), doctest::Contains("image 3 in a batch of 3"), Error);
}

TEST_CASE("masks are resized by nearest neighbour") {
  const Tensor m = Tensor::from_vector<int32_t>({0, 1, 2, 3, 4, 5, 6, 7, 8}, {1, 3, 3});
  CHECK(resize_masks(m, 2, 2).to_vector<int32_t>() == std::vector<int32_t>{0, 1, 3, 4});
  CHECK(resize_masks(m, 1, 6).to_vector<int32_t>() == std::vector<int32_t>{0, 0, 1, 1, 2, 2});
}
