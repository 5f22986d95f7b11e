// The gradient of every backward op, against four-point central differences of its forward, in f64 on the reference backend:
//   f'(x) ~ (f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / 12h, error of order h^4.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "tensor/backend.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/losses.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/pool.h"
#include "tensor/ops/random.h"
#include "tensor/ops/softmax.h"
#include "tests/support/every.h"

namespace tessera::testing {
namespace {

using Inputs = std::vector<Tensor>;

// f64 numbers in [low, high), different for every tensor of a case.
Tensor numbers(const Shape& shape, uint32_t index, double low = -1, double high = 1) {
  const Tensor t = Tensor::empty(shape, DType::kF64);
  ops::uniform(t, {.seed = 3, .purpose = RngPurpose::kTest, .index = index}, low, high);
  return t;
}

// sum of y * dy: turns a tensor-valued op into a number whose gradient is the op's backward for dy.
double dot(const Tensor& y, const Tensor& dy) {
  const auto a = y.to_vector<double>();
  const auto b = dy.to_vector<double>();
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// `gradients` gives the gradient of `loss` for each of the inputs, in order.
void check_gradients(const std::string& name, const Inputs& inputs, const std::function<double(const Inputs&)>& loss,
                     const std::function<Inputs(const Inputs&)>& gradients, double h = 1e-3) {
  const BackendGuard guard(*find_backend("ref"));
  const Inputs exact = gradients(inputs);
  REQUIRE(exact.size() == inputs.size());
  for (size_t k = 0; k < inputs.size(); ++k) {
    REQUIRE(exact[k].shape() == inputs[k].shape());
    double worst = 0;
    int64_t where = 0;
    for (int64_t i = 0; i < inputs[k].numel(); ++i) {
      auto shifted = [&](double by) {
        Inputs moved = inputs;
        moved[k] = inputs[k].clone();
        moved[k].data<double>()[i] += by;
        return loss(moved);
      };
      const double numeric = (shifted(-2 * h) - 8 * shifted(-h) + 8 * shifted(h) - shifted(2 * h)) / (12 * h);
      const double error = std::abs(numeric - exact[k].data<double>()[i]) / (1 + std::abs(numeric));
      if (!(error <= worst)) worst = error, where = i;
    }
    CHECK_MESSAGE(worst < 1e-8, name, ": gradient of input ", k, " at ", where, " is off by ", worst);
  }
}

TEST_CASE("gradients of pointwise ops") {
  for (UnaryOp op : every<UnaryOp>()) {
    const bool kinked = op == UnaryOp::kRelu || op == UnaryOp::kAbs;  // stay clear of the kink
    const bool positive = op == UnaryOp::kLog || op == UnaryOp::kSqrt || kinked;
    for (double sign : {1.0, kinked ? -1.0 : 1.0}) {
      const Tensor x = ops::scale(positive ? numbers({3, 5}, 0, 0.5, 3) : numbers({3, 5}, 0, -4, 4), sign);
      const Tensor dy = numbers({3, 5}, 1);
      check_gradients(
          std::string(name_of(op)), {x}, [&](const Inputs& in) { return dot(ops::unary(op, in[0]), dy); },
          [&](const Inputs& in) { return Inputs{ops::unary_backward(op, in[0], dy)}; });
    }
  }
}

TEST_CASE("gradients of convolutions") {
  struct Sizes {
    Shape x, w;
    ConvParams p;
  };
  for (const Sizes& s : {Sizes{{2, 4, 5, 3}, {4, 3, 3, 3}, {1, 1}}, Sizes{{1, 5, 6, 2}, {3, 3, 3, 2}, {2, 1}},
                         Sizes{{1, 3, 4, 5}, {2, 1, 1, 5}, {1, 0}}}) {
    const Tensor dy = numbers(ops::conv2d_shape(s.x, s.w, s.p), 9);
    check_gradients(
        "conv2d " + to_string(s.w), {numbers(s.x, 0), numbers(s.w, 1), numbers({s.w[0]}, 2)},
        [&](const Inputs& in) { return dot(ops::conv2d(in[0], in[1], s.p, in[2]), dy); },
        [&](const Inputs& in) {
          const Tensor dw = Tensor::empty(s.w, DType::kF64);
          const Tensor dbias = Tensor::empty({s.w[0]}, DType::kF64);
          ops::conv2d_backward_weight(in[0], dy, dw, s.p, false);
          ops::bias_backward(dy, dbias, false);
          return Inputs{ops::conv2d_backward_data(dy, in[1], s.x, s.p), dw, dbias};
        });
  }
  const Shape w{3, 2, 2, 4};
  const Tensor dy = numbers({2, 4, 6, 3}, 9);
  check_gradients(
      "conv_transpose2x2", {numbers({2, 2, 3, 4}, 0), numbers(w, 1), numbers({3}, 2)},
      [&](const Inputs& in) { return dot(ops::conv_transpose2x2(in[0], in[1], in[2]), dy); },
      [&](const Inputs& in) {
        const Tensor dw = Tensor::empty(w, DType::kF64);
        const Tensor dbias = Tensor::empty({3}, DType::kF64);
        ops::conv_transpose2x2_backward_weight(in[0], dy, dw, false);
        ops::bias_backward(dy, dbias, false);
        return Inputs{ops::conv_transpose2x2_backward_data(dy, in[1]), dw, dbias};
      });
}

TEST_CASE("gradients of pooling and upsampling") {
  for (const PoolParams& p : {PoolParams{5, 1, 2}, PoolParams{2, 2, 0}, PoolParams{3, 2, 1}}) {
    // Values 0.1 apart, shuffled: no tie within reach of the differences.
    const Shape shape{1, 6, 6, 2};
    const Tensor x = Tensor::empty(shape, DType::kF64);
    for (int64_t i = 0; i < x.numel(); ++i) x.data<double>()[i] = 0.1 * double(i * 31 % x.numel());
    const Tensor dy = numbers(ops::max_pool2d(x, p, false).first.shape(), 9);
    check_gradients(
        "max_pool2d", {x}, [&](const Inputs& in) { return dot(ops::max_pool2d(in[0], p, false).first, dy); },
        [&](const Inputs& in) { return Inputs{ops::max_pool2d_backward(dy, ops::max_pool2d(in[0], p, true).second, shape, p)}; });
  }
  const Tensor dy = numbers({2, 6, 4, 3}, 9);
  check_gradients(
      "upsample2x", {numbers({2, 3, 2, 3}, 0)}, [&](const Inputs& in) { return dot(ops::upsample2x(in[0]), dy); },
      [&](const Inputs&) { return Inputs{ops::upsample2x_backward(dy)}; });
}

TEST_CASE("gradients of batch norm through its statistics") {
  for (Activation act : {Activation::kNone, Activation::kSilu}) {
    for (double center : {0.0, 20.0}) {
      const Shape shape{2, 3, 4, 3};
      const Tensor dy = numbers(shape, 9);
      auto forward = [&](const Inputs& in) {
        const auto s = ops::batch_norm_stats(in[0], 1e-3);
        return ops::batch_norm_apply(in[0], s.mean, s.rstd, in[1], in[2], act);
      };
      check_gradients(
          "batch_norm", {numbers(shape, 0, center - 1, center + 1), numbers({3}, 1, 0.5, 1.5), numbers({3}, 2)},
          [&](const Inputs& in) { return dot(forward(in), dy); },
          [&](const Inputs& in) {
            const auto s = ops::batch_norm_stats(in[0], 1e-3);
            const Tensor dgamma = Tensor::empty({3}, DType::kF64);
            const Tensor dbeta = Tensor::empty({3}, DType::kF64);
            const Tensor dx = ops::batch_norm_backward(in[0], dy, s.mean, s.rstd, in[1], in[2], act, dgamma, dbeta, false);
            return Inputs{dx, dgamma, dbeta};
          });
    }
  }
}

TEST_CASE("gradients of softmax") {
  const Tensor x = numbers({4, 7}, 0, -3, 3);
  const Tensor dy = numbers({4, 7}, 9);
  check_gradients(
      "softmax", {x}, [&](const Inputs& in) { return dot(ops::softmax(in[0]), dy); },
      [&](const Inputs& in) { return Inputs{ops::softmax_backward(ops::softmax(in[0]), dy)}; });
  check_gradients(
      "log_softmax", {x}, [&](const Inputs& in) { return dot(ops::log_softmax(in[0]), dy); },
      [&](const Inputs& in) { return Inputs{ops::log_softmax_backward(ops::log_softmax(in[0]), dy)}; });
}

TEST_CASE("gradients of losses") {
  const Tensor target = numbers({4, 6}, 5, 0, 1);
  check_gradients(
      "bce_with_logits", {numbers({4, 6}, 0, -5, 5)}, [&](const Inputs& in) { return 0.7 * ops::bce_with_logits(in[0], target).item(); },
      [&](const Inputs& in) {
        const Tensor dx = Tensor::empty({4, 6}, DType::kF64);
        ops::bce_with_logits_backward(in[0], target, Tensor::scalar(0.7, DType::kF64), dx, false);
        return Inputs{dx};
      });

  const Tensor sides = numbers({3, 4}, 5, 0, 14.99);
  const Tensor weight = numbers({3}, 6, 0, 1);
  check_gradients(
      "dfl_loss", {numbers({3, 64}, 0, -3, 3)}, [&](const Inputs& in) { return 1.5 * ops::dfl_loss(in[0], sides, weight).item(); },
      [&](const Inputs& in) { return Inputs{ops::dfl_loss_backward(in[0], sides, weight, Tensor::scalar(1.5, DType::kF64))}; });

  for (bool overlap : {true, false}) {
    const std::vector<int32_t> image = {0, 1, 1};
    const std::vector<int32_t> object = overlap ? std::vector<int32_t>{1, 2, 1} : std::vector<int32_t>{2, 0, 1};
    const std::vector<float> boxes = {0, 0, 3, 4, 0.5f, 1.2f, 4, 3.5f, 1, -1, 9, 2};
    const std::vector<float> area = {0.4f, 0.3f, 0.6f};
    const MaskLossItems items{3, image.data(), object.data(), boxes.data(), area.data(), overlap};
    const Tensor masks = Tensor::empty({overlap ? 2 : 3, 4, 5}, DType::kI32);
    for (int64_t i = 0; i < masks.numel(); ++i) masks.data<int32_t>()[i] = int32_t(i * 7 % (overlap ? 3 : 2));
    check_gradients(
        "mask_loss", {numbers({3, 3}, 0), numbers({2, 4, 5, 3}, 1)},
        [&](const Inputs& in) { return 0.9 * ops::mask_loss(in[0], in[1], masks, items).item(); },
        [&](const Inputs& in) {
          const Tensor dc = Tensor::zeros({3, 3}, DType::kF64);
          const Tensor dp = Tensor::zeros({2, 4, 5, 3}, DType::kF64);
          ops::mask_loss_backward(in[0], in[1], masks, items, Tensor::scalar(0.9, DType::kF64), dc, dp);
          return Inputs{dc, dp};
        });
  }
}

// The gradient of CIoU holds alpha constant, so the differences do too: CIoU(x) + (alpha(x) - alpha(x0)) v(x), with alpha and v
// of spec 7.4.
TEST_CASE("gradient of CIoU with alpha held constant") {
  const Tensor boxes = Tensor::from_vector<double>({1, 2, 5, 9, 0, 0, 2, 2, 0.5, 0.25, 4, 4, 1, 1, 2, 2.5}, {4, 4});
  const Tensor target =
      Tensor::from_vector<double>({2, 1, 8, 6, 5, 6, 9, 8, 1, 1, 2, 3, 0, 0, 6, 8}, {4, 4});  // crossed, apart, inside, around
  const Tensor weight = Tensor::from_vector<double>({1, 0.5, 2, 0.7}, {4});
  constexpr double kEps = 1e-7;
  auto alpha_and_v = [&](const Tensor& b, int64_t row) {
    const double* p = b.data<double>() + 4 * row;
    const double* t = target.data<double>() + 4 * row;
    const double w1 = p[2] - p[0], h1 = p[3] - p[1] + kEps, w2 = t[2] - t[0], h2 = t[3] - t[1] + kEps;
    const double inter =
        std::max(0.0, std::min(p[2], t[2]) - std::max(p[0], t[0])) * std::max(0.0, std::min(p[3], t[3]) - std::max(p[1], t[1]));
    const double iou = inter / (w1 * h1 + w2 * h2 - inter + kEps);
    const double angle = std::atan(w2 / h2) - std::atan(w1 / h1);
    const double v = 4 / (M_PI * M_PI) * angle * angle;
    return std::pair{v / (v - iou + 1 + kEps), v};
  };
  check_gradients(
      "ciou_loss", {boxes},
      [&](const Inputs& in) {
        double loss = ops::ciou_loss(in[0], target, weight).item();
        for (int64_t row = 0; row < 4; ++row) {
          const auto [alpha, v] = alpha_and_v(in[0], row);
          loss -= weight.data<double>()[row] * (alpha - alpha_and_v(boxes, row).first) * v;
        }
        return 1.3 * loss;
      },
      [&](const Inputs& in) { return Inputs{ops::ciou_loss_backward(in[0], target, weight, Tensor::scalar(1.3, DType::kF64))}; }, 1e-4);
}

}  // namespace
}  // namespace tessera::testing
