// Loss ops at known points.
#include "tensor/ops/losses.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "tensor/backend.h"

namespace tessera::testing {
namespace {

// spec/examples: CIoU of (1,2,5,9) with (2,1,8,6), and its gradient with alpha held constant.
TEST_CASE("CIoU of the example") {
  for (Backend* backend : available_backends()) {
    const BackendGuard guard(*backend);
    const Tensor box = Tensor::from_floats({1, 2, 5, 9}, {1, 4});
    const Tensor target = Tensor::from_floats({2, 1, 8, 6}, {1, 4});
    const Tensor weight = Tensor::full({1}, 1);
    const Tensor ciou = Tensor::empty({1});
    CHECK(ops::ciou_loss(box, target, weight, ciou).item() == doctest::Approx(1 - 0.186702391).epsilon(1e-6));
    CHECK(ciou.item() == doctest::Approx(0.186702391).epsilon(1e-6));
    const auto gradient = ops::ciou_loss_backward(box, target, weight, Tensor::scalar(-1)).to_vector<float>();
    const std::vector<double> expected = {0.046591302, -0.076083078, 0.089676514, -0.031521496};
    for (size_t i = 0; i < 4; ++i) CHECK(gradient[i] == doctest::Approx(expected[i]).epsilon(1e-5));
  }
}

// One logit of 0 against any target costs log 2; a sure and right one costs nothing; the far tails stay finite.
TEST_CASE("cross-entropy at known points") {
  const Tensor x = Tensor::from_floats({0, 200, -200, 200}, {4});
  CHECK(ops::bce_with_logits(x.narrow(0, 0, 1), Tensor::from_floats({0.3f}, {1})).item() == doctest::Approx(std::log(2.0)));
  CHECK(ops::bce_with_logits(x.narrow(0, 1, 2), Tensor::from_floats({1, 0}, {2})).item() == doctest::Approx(0.0));
  // Labels are targets with one entry a row.
  const Tensor logits = Tensor::from_floats({0.5f, -2, 3, 1, 0, -1}, {2, 3});
  const Tensor label = Tensor::from_vector<int32_t>({1, -1}, {2}), score = Tensor::from_floats({0.75f, 0.5f}, {2});
  const Tensor dense = Tensor::from_floats({0, 0.75f, 0, 0, 0, 0}, {2, 3}), one = Tensor::scalar(1);
  const std::array maps{logits};
  CHECK(ops::bce_with_labels(maps, label, score).item() == doctest::Approx(ops::bce_with_logits(logits, dense).item()).epsilon(1e-6));
  const Tensor dx = Tensor::empty({2, 3});
  ops::bce_with_logits_backward(logits, dense, one, dx, false);
  const std::vector<float> wanted = dx.to_vector<float>(), got = ops::bce_with_labels_backward(maps, label, score, one)[0].to_vector<float>();
  for (size_t i = 0; i < wanted.size(); ++i) CHECK(got[i] == doctest::Approx(wanted[i]).epsilon(1e-6));
  CHECK(ops::bce_with_logits(x.narrow(0, 3, 1), Tensor::from_floats({0}, {1})).item() == doctest::Approx(200.0));
}

// Uniform logits over 16 bins cost log 16, wherever the target lies.
TEST_CASE("DFL of uniform logits") {
  const Tensor target = Tensor::from_floats({0, 1.5f, 7, 14.99f}, {1, 4});
  CHECK(ops::dfl_loss(Tensor::zeros({1, 64}), target, Tensor::full({1}, 2)).item() == doctest::Approx(2 * std::log(16.0)));
}

}  // namespace
}  // namespace tessera::testing
