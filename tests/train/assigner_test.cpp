#include "tests/train/assigner_cases.h"

#include "tensor/backend.h"
#include "tensor/ops/assign_math.h"

using namespace tessera;

namespace {

template <class F>
void on_each_backend(F&& check) {
  for (Backend* backend : available_backends()) {
    if (backend->device_kind() != Device::Kind::kCpu) continue;
    CAPTURE(backend->name());
    const BackendGuard use(*backend);
    check(Device::cpu());
  }
}

}  // namespace

TEST_CASE("assignment equals the original's in 200 random cases") { on_each_backend(testing::check_golden_assignment); }
TEST_CASE("assignment: ties and metrics of 0") { on_each_backend(testing::check_assignment_of_ties); }
TEST_CASE("assignment: the best of many") { on_each_backend(testing::check_assignment_of_many); }

TEST_CASE("assignment refuses what does not fit") {
  const auto maps = testing::decoded_maps(Tensor::zeros({1, 4, 2}), Tensor::zeros({1, 4, 4}), {{{1, 4}, {0, 0}, {0, 0}}}, {8, 16, 32});
  const Tensor box = Tensor::zeros({1, 1, 4});
  CHECK_THROWS_WITH_AS(ops::assign(maps, box, Tensor::full({1, 1}, 2, DType::kI32)), doctest::Contains("class 2 of object 0"), Error);
  CHECK_THROWS_WITH_AS(ops::assign(maps, box, Tensor::zeros({1, 2}, DType::kI32)), doctest::Contains("got classes i32[1, 2]"), Error);
  CHECK_THROWS_WITH_AS(ops::assign(maps, box, Tensor::zeros({1, 1}, DType::kI32), {33, 0.5f, 6.0f}), doctest::Contains("topk 33"), Error);
}

TEST_CASE("CIoU of the specification's example") {
  const float a[] = {1, 2, 5, 9}, b[] = {2, 1, 8, 6};
  using namespace assign_math;
  CHECK(ciou(a, b, box_angle(a), box_angle(b)) == doctest::Approx(0.186702391).epsilon(1e-6));
}

TEST_CASE("what a positive learns: distances are held where there are bins, a box without extent has the area 1") {
  ops::AnchorMaps maps;
  maps.strides = {8, 16, 32};
  for (size_t i = 0; i < kAnchorLevels; ++i) {
    const int64_t side = i == 0 ? 2 : 1;
    maps.box[i] = Tensor::zeros({1, side, side, 64});
    maps.cls[i] = Tensor::zeros({1, side, side, 2});
  }
  // Object 0 is none; an anchor goes to it where several objects want it and none overlaps.
  const Tensor boxes = Tensor::from_floats({0, 0, 0, 0, 0, 0, 512, 256}, {1, 2, 4});
  const Tensor classes = Tensor::from_vector<int32_t>({-1, 1}, {1, 2}), mask_ids = Tensor::from_vector<int32_t>({0, 7}, {1, 2});
  const ops::Assignment assignment{Tensor::from_vector<int32_t>({0, 1, -1, -1, -1, 1}, {6}),
                                   Tensor::from_floats({0, 0.5f, 0, 0, 0, 0.25f}, {6})};
  PositivesParams params;
  params.image_height = 512, params.image_width = 1024;
  params.mask_height = 128, params.mask_width = 256;
  on_each_backend([&](Device) {
    const ops::Positives p = ops::collect_positives(maps, boxes, classes, mask_ids, assignment, params, 4);
    CHECK(p.index.to_vector<int64_t>() == std::vector<int64_t>{0, 1, -1, -1, -1, -1, -1, -1, -1, -1, 0, -1});
    CHECK(p.label.to_vector<int32_t>() == std::vector<int32_t>{-1, 1, -1, -1, -1, 1});
    CHECK(p.anchors.to_vector<float>() ==
          std::vector<float>{.5f, .5f, .5f, .5f, 1.5f, .5f, 1.5f, .5f, .5f, .5f, .5f, .5f, 0, 0, 0, 0});
    CHECK(p.distances.to_vector<float>() ==
          std::vector<float>{.5f, .5f, 0, 0, 1.5f, .5f, 14.99f, 14.99f, .5f, .5f, 14.99f, 7.5f, 0, 0, 0, 0});
    CHECK(p.area.to_vector<float>() == std::vector<float>{1, 0.25f, 0.25f, 1});
    CHECK(p.mask.to_vector<int32_t>() == std::vector<int32_t>{0, 7, 7, 0});
    CHECK(p.mask_boxes.to_vector<float>() == std::vector<float>{0, 0, 0, 0, 0, 0, 128, 64, 0, 0, 128, 64, 0, 0, 0, 0});
    CHECK(p.totals.to_vector<double>() == std::vector<double>{0.75, 3});
  });
}
