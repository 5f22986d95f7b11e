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
