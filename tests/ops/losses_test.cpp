// Loss kernels on every backend, and the numbers of the specification's examples.
#include "tensor/ops/losses.h"

#include "tests/support/op_case.h"

namespace tessera::testing {
namespace {

// Boxes x1 y1 x2 y2 with positive sides, row by row.
Values corners() {
  return [low = std::vector<double>(2)](Rng& rng, int64_t i) mutable {
    const size_t side = size_t(i % 4);
    if (side < 2) return low[side] = rng.uniform(0, 8);
    return low[side - 2] + rng.uniform(1, 8);
  };
}

struct MaskItems {
  std::vector<int32_t> image{0, 1, 1, 0, 1};
  std::vector<int32_t> target;
  std::vector<float> boxes{1, 1, 6,  5,     2.5f, 1.2f, 9,    4.4f, 2,    0,
                           5, 7, -3, 1.75f, 4,    99,   3.1f, 3.1f, 3.9f, 3.9f};  // the last holds no pixel
  std::vector<float> area{0.4f, 0.35f, 0.375f, 0.3f, 0.01f};
  bool overlap;

  explicit MaskItems(bool overlapping)
      : target(overlapping ? std::vector<int32_t>{1, 2, 1, 2, 1} : std::vector<int32_t>{0, 3, 2, 1, 2}), overlap(overlapping) {}
  MaskLossItems view() const { return {int64_t(image.size()), image.data(), target.data(), boxes.data(), area.data(), overlap}; }
};

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  for (const Shape& shape : {Shape{0, 80}, Shape{5, 7}, Shape{129, 80}, Shape{1, 3000}}) {
    const std::vector<Slot> slots = {{"x", shape, Role::kIn, Fit::kRows, uniform(-8, 8)},
                                     {"target", shape, Role::kIn, Fit::kRows, uniform(0, 1)}};
    list.push_back({.method = "bce_with_logits",
                    .detail = to_string(shape),
                    .slots = slots,
                    .run = [](Backend& b, const Bound& t, bool) { return b.bce_with_logits(t.rows("x"), t.rows("target")); },
                    .length = 8});
    std::vector<Slot> backward = slots;
    backward.push_back({"dx", shape, Role::kOut});
    list.push_back({.method = "bce_with_logits_backward",
                    .detail = to_string(shape),
                    .slots = backward,
                    .run =
                        [](Backend& b, const Bound& t, bool accumulate) {
                          return b.bce_with_logits_backward(t.rows("x"), t.rows("target"), 0.37, t.rows("dx"), accumulate), 0.0;
                        },
                    .accumulates = true});
  }
  for (int64_t n : {1, 7, 100}) {
    const std::vector<Slot> boxes = {{"boxes", {n, 4}, Role::kIn, Fit::kRows, corners()},
                                     {"target", {n, 4}, Role::kIn, Fit::kRows, corners()},
                                     {"weight", {n}, Role::kIn, Fit::kDense, uniform(0, 1)}};
    std::vector<Slot> with_value = boxes;
    with_value.push_back({"ciou", {n}, Role::kOut, Fit::kDense});
    list.push_back({.method = "ciou_loss",
                    .detail = fmt::format("{} boxes", n),
                    .slots = with_value,
                    .run = [](Backend& b, const Bound& t,
                              bool) { return b.ciou_loss(t.rows("boxes"), t.rows("target"), t.raw("weight"), t.raw("ciou")); },
                    .length = 8});
    list.push_back({.method = "ciou_loss",
                    .detail = fmt::format("{} boxes, sum only", n),
                    .slots = boxes,
                    .run = [](Backend& b, const Bound& t,
                              bool) { return b.ciou_loss(t.rows("boxes"), t.rows("target"), t.raw("weight"), nullptr); },
                    .length = 8});
    std::vector<Slot> gradient = boxes;
    gradient.push_back({"dboxes", {n, 4}, Role::kOut});
    list.push_back({.method = "ciou_loss_backward",
                    .detail = fmt::format("{} boxes", n),
                    .slots = gradient,
                    .run =
                        [](Backend& b, const Bound& t, bool) {
                          return b.ciou_loss_backward(t.rows("boxes"), t.rows("target"), t.raw("weight"), 1.7, t.rows("dboxes")),
                                 0.0;
                        },
                    .length = 64});
    for (int64_t bins : {2, 16, 33}) {
      const std::vector<Slot> slots = {{"logits", {n, 4 * bins}, Role::kIn, Fit::kRows, uniform(-6, 6)},
                                       {"target", {n, 4}, Role::kIn, Fit::kRows, uniform(0, double(bins) - 1.01)},
                                       {"weight", {n}, Role::kIn, Fit::kDense, uniform(0, 1)}};
      list.push_back(
          {.method = "dfl_loss",
           .detail = fmt::format("{} boxes, {} bins", n, bins),
           .slots = slots,
           .run = [](Backend& b, const Bound& t, bool) { return b.dfl_loss(t.rows("logits"), t.rows("target"), t.raw("weight")); },
           .length = double(bins)});
      std::vector<Slot> backward = slots;
      backward.push_back({"dlogits", {n, 4 * bins}, Role::kOut});
      list.push_back({.method = "dfl_loss_backward",
                      .detail = fmt::format("{} boxes, {} bins", n, bins),
                      .slots = backward,
                      .run =
                          [](Backend& b, const Bound& t, bool accumulate) {
                            return b.dfl_loss_backward(t.rows("logits"), t.rows("target"), t.raw("weight"), 0.6, t.rows("dlogits"),
                                                       accumulate),
                                   0.0;
                          },
                      .length = double(bins),
                      .accumulates = true});
    }
  }
  for (bool overlap : {true, false}) {
    for (int64_t k : {1, 5, 32}) {
      const MaskItems items(overlap);
      const int64_t n = int64_t(items.image.size());
      const std::string detail = fmt::format("{}, {} prototypes", overlap ? "overlap" : "separate", k);
      const std::vector<Slot> slots = {
          {"coefficients", {n, k}},
          {"prototypes", {2, 7, 9, k}},
          {"masks", {overlap ? 2 : 4, 7, 9}, Role::kIn, Fit::kDense, overlap ? whole(0, 2) : whole(0, 1), DType::kI32}};
      list.push_back({.method = "mask_loss",
                      .detail = detail,
                      .slots = slots,
                      .run =
                          [items](Backend& b, const Bound& t, bool) {
                            return b.mask_loss(t.rows("coefficients"), t.image("prototypes"), t["masks"].data<int32_t>(),
                                               items.view());
                          },
                      .length = double(k)});
      std::vector<Slot> backward = slots;
      backward.push_back({"dcoefficients", {n, k}, Role::kInOut});
      backward.push_back({"dprototypes", {2, 7, 9, k}, Role::kInOut});
      list.push_back({.method = "mask_loss_backward",
                      .detail = detail,
                      .slots = backward,
                      .run =
                          [items](Backend& b, const Bound& t, bool) {
                            b.mask_loss_backward(t.rows("coefficients"), t.image("prototypes"), t["masks"].data<int32_t>(),
                                                 items.view(), 0.8, t.rows("dcoefficients"), t.image("dprototypes"));
                            return 0.0;
                          },
                      .length = 63});
    }
  }
  return list;
}
const RegisterCases registration(cases);

TEST_CASE("loss kernels") { run_cases(cases()); }

// spec/examples: CIoU of (1,2,5,9) with (2,1,8,6), and its gradient with alpha held constant.
TEST_CASE("CIoU of the example") {
  for (Backend* backend : available_backends()) {
    const BackendGuard guard(*backend);
    const Tensor box = Tensor::from_floats({1, 2, 5, 9}, {1, 4});
    const Tensor target = Tensor::from_floats({2, 1, 8, 6}, {1, 4});
    const Tensor weight = Tensor::full({1}, 1);
    const Tensor ciou = Tensor::empty({1});
    CHECK(ops::ciou_loss(box, target, weight, ciou) == doctest::Approx(1 - 0.186702391).epsilon(1e-6));
    CHECK(ciou.item() == doctest::Approx(0.186702391).epsilon(1e-6));
    const auto gradient = ops::ciou_loss_backward(box, target, weight, -1).to_vector<float>();
    const std::vector<double> expected = {0.046591302, -0.076083078, 0.089676514, -0.031521496};
    for (size_t i = 0; i < 4; ++i) CHECK(gradient[i] == doctest::Approx(expected[i]).epsilon(1e-5));
  }
}

// One logit of 0 against any target costs log 2; a sure and right one costs nothing; the far tails stay finite.
TEST_CASE("cross-entropy at known points") {
  const Tensor x = Tensor::from_floats({0, 200, -200, 200}, {4});
  CHECK(ops::bce_with_logits(x.narrow(0, 0, 1), Tensor::from_floats({0.3f}, {1})) == doctest::Approx(std::log(2.0)));
  CHECK(ops::bce_with_logits(x.narrow(0, 1, 2), Tensor::from_floats({1, 0}, {2})) == doctest::Approx(0.0));
  CHECK(ops::bce_with_logits(x.narrow(0, 3, 1), Tensor::from_floats({0}, {1})) == doctest::Approx(200.0));
}

// Uniform logits over 16 bins cost log 16, wherever the target lies.
TEST_CASE("DFL of uniform logits") {
  const Tensor target = Tensor::from_floats({0, 1.5f, 7, 14.99f}, {1, 4});
  CHECK(ops::dfl_loss(Tensor::zeros({1, 64}), target, Tensor::full({1}, 2)) == doctest::Approx(2 * std::log(16.0)));
}

}  // namespace
}  // namespace tessera::testing
