// Every differentiable function against 4-point finite differences in f64 on the reference backend.
#include "autograd/gradcheck.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <regex>

#include "autograd/functions/concat.h"
#include "autograd/functions/conv.h"
#include "autograd/functions/index.h"
#include "autograd/functions/loss.h"
#include "autograd/functions/matmul.h"
#include "autograd/functions/norm.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/pool.h"
#include "autograd/functions/reduce.h"
#include "autograd/functions/shape.h"
#include "autograd/functions/softmax.h"
#include "tensor/base/rng.h"
#include "tests/support/every.h"

using namespace tessera;
using Vars = std::vector<Variable>;

namespace {

Tensor random(const Shape& shape, uint64_t seed, double low = -2.0, double high = 2.0) {
  Rng rng(seed, RngPurpose::kTest);
  const Tensor t = Tensor::empty(shape, DType::kF64);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] = rng.uniform(low, high);
  return t;
}

void check(const std::function<Variable(const Vars&)>& f, const std::vector<Tensor>& inputs, double tolerance = 1e-7) {
  const GradCheckResult r = gradcheck(f, inputs, {1e-3, tolerance});
  INFO(r.worst << "; max error " << r.max_error);
  CHECK(r.ok);
}

}  // namespace

TEST_CASE("gradcheck notices a wrong gradient") {
  // sum(x * detach(x)) has the analytic gradient x, the true one is 2x.
  const GradCheckResult r = gradcheck([](const Vars& v) { return ag::multiply(v[0], v[0].detach()); }, {random({3}, 1)});
  CHECK_FALSE(r.ok);
}

TEST_CASE("every differentiable function is checked here") {
  const std::filesystem::path root = TESSERA_SOURCE_DIR;
  std::ifstream self(root / "tests" / "autograd" / "gradcheck_test.cpp");
  const std::string checks{std::istreambuf_iterator<char>(self), {}};
  const std::regex declaration(R"((?:Variable|ConvWithStats) (\w+)\(.*)");
  int functions = 0;
  for (const auto& header : std::filesystem::directory_iterator(root / "autograd" / "functions")) {
    if (header.path().extension() != ".h") continue;
    std::ifstream in(header.path());
    std::smatch m;
    for (std::string line; std::getline(in, line);) {
      if (!std::regex_match(line, m, declaration) || m[1] == "cast") continue;  // what rounds has steps
      const std::string name = "ag::" + m[1].str();
      ++functions;
      CHECK_MESSAGE(checks.find(name + "(") != std::string::npos, name, " of ", header.path().filename().string(),
                    " has no gradient check in tests/autograd/gradcheck_test.cpp");
    }
  }
  CHECK(functions > 20);
}

TEST_CASE("pointwise functions") {
  using enum UnaryOp;
  for (UnaryOp op : testing::every<UnaryOp>()) {
    CAPTURE(name_of(op));
    const bool positive = op == kLog || op == kSqrt || op == kRelu || op == kAbs;  // where they are defined, and clear of the kink
    check([op](const Vars& v) { return ag::unary(op, v[0]); }, {positive ? random({3, 5}, 3, 0.5, 3.0) : random({3, 5}, 2)});
  }
}

TEST_CASE("binary functions broadcast and sum back") {
  for (BinaryOp op : {BinaryOp::kAdd, BinaryOp::kSubtract, BinaryOp::kMultiply, BinaryOp::kDivide}) {
    CAPTURE(name_of(op));
    auto f = [op](const Vars& v) { return ag::binary(op, v[0], v[1]); };
    check(f, {random({2, 3, 4}, 4), random({2, 3, 4}, 5, 0.5, 2.0)});
    check(f, {random({2, 3, 4}, 6), random({4}, 7, 0.5, 2.0)});
    check(f, {random({3, 1}, 8), random({2, 1, 4}, 9, 0.5, 2.0)});
  }
  check([](const Vars& v) { return ag::scale(v[0], -2.5); }, {random({4}, 10)});
}

TEST_CASE("sums, means and products") {
  check([](const Vars& v) { return ag::sum(v[0]); }, {random({3, 4}, 11)});
  check([](const Vars& v) { return ag::mean(v[0], {0, 2}); }, {random({3, 4, 2}, 12)});
  check([](const Vars& v) { return ag::sum(v[0], {-1}, true); }, {random({3, 4}, 13)});
  check([](const Vars& v) { return ag::matmul(v[0], v[1]); }, {random({3, 4}, 14), random({4, 5}, 15)});
  check([](const Vars& v) { return ag::matmul(v[0], v[1], true); }, {random({2, 3, 4}, 16), random({2, 5, 4}, 17)});
}

TEST_CASE("views, slices and concatenation") {
  check([](const Vars& v) { return ag::silu(ag::view(v[0], {6, -1})); }, {random({2, 3, 4}, 18)});
  check([](const Vars& v) {
    const Variable a = ag::narrow_channels(v[0], 0, 2), b = ag::narrow_channels(v[0], 2, 3);
    const Variable parts[] = {ag::silu(a), b, a, v[1]};
    return ag::concat_channels(parts);
  }, {random({2, 2, 5}, 19), random({2, 2, 1}, 20)});
  check([](const Vars& v) {
    const Variable parts[] = {v[0], ag::silu(v[1])};
    return ag::concat(parts, 1);
  }, {random({2, 2, 3}, 21), random({2, 4, 3}, 22)});
}

TEST_CASE("convolutions") {
  for (const ConvParams p : {ConvParams{1, 1}, ConvParams{2, 1}, ConvParams{1, 0}}) {
    check([p](const Vars& v) { return ag::conv2d(v[0], v[1], v[2], p); },
          {random({2, 5, 6, 2}, 23), random({3, 3, 3, 2}, 24), random({3}, 25)});
  }
  check([](const Vars& v) { return ag::conv2d(v[0], v[1], {}, {1, 0}); }, {random({1, 3, 3, 4}, 26), random({2, 1, 1, 4}, 27)});
  check(
      [](const Vars& v) {
        return ag::conv2d_wide(v[0], v[1], v[2], {1, 0});
      },
      {random({1, 3, 3, 4}, 62), random({2, 1, 1, 4}, 63), random({2}, 64)});
  check(
      [](const Vars& v) {
        return ag::conv2d_with_stats(v[0], v[1], {1, 1}, 1e-3, {}).y;
      },
      {random({1, 3, 3, 4}, 65), random({2, 3, 3, 4}, 66)});
  check([](const Vars& v) { return ag::conv_transpose2x2(v[0], v[1], v[2]); },
        {random({2, 3, 2, 3}, 28), random({2, 2, 2, 3}, 29), random({2}, 30)});
}

TEST_CASE("pooling and upsampling") {
  check([](const Vars& v) { return ag::max_pool2d(v[0], {5, 1, 2}); }, {random({1, 6, 5, 2}, 31)});
  check([](const Vars& v) { return ag::max_pool2d(v[0], {2, 2, 0}); }, {random({2, 4, 4, 3}, 32)});
  check([](const Vars& v) { return ag::upsample2x(v[0]); }, {random({2, 3, 2, 3}, 33)});
}

TEST_CASE("batch normalisation, fused with SiLU and a residual") {
  for (Activation act : {Activation::kNone, Activation::kSilu}) {
    auto f = [act](const Vars& v) {
      // Fresh running statistics for each call: they are outputs, not inputs, of the training form.
      const ag::BatchNormState state{Tensor::zeros({3}, DType::kF64), Tensor::full({3}, 1.0, DType::kF64), 0.03, 1e-3};
      return ag::batch_norm_train(v[0], v[1], v[2], state, act, v.size() > 3 ? v[3] : Variable{});
    };
    check(f, {random({2, 3, 2, 3}, 34), random({3}, 35, 0.5, 1.5), random({3}, 36)}, 1e-6);
    check(f, {random({2, 3, 2, 3}, 37), random({3}, 38, 0.5, 1.5), random({3}, 39), random({2, 3, 2, 3}, 40)}, 1e-6);
    auto eval = [act](const Vars& v) {
      const ag::BatchNormState state{random({3}, 41), random({3}, 42, 0.5, 1.5), 0.03, 1e-3};
      return ag::batch_norm_eval(v[0], v[1], v[2], state, act);
    };
    check(eval, {random({2, 2, 2, 3}, 43), random({3}, 44), random({3}, 45)});
  }
}

TEST_CASE("softmax and gather") {
  check([](const Vars& v) { return ag::softmax(v[0]); }, {random({3, 7}, 46)});
  check([](const Vars& v) { return ag::log_softmax(v[0]); }, {random({2, 2, 5}, 47)});
  const Tensor index = Tensor::from_vector<int64_t>({3, 0, 3, 1}, {4});
  check([index](const Vars& v) { return ag::gather_rows(v[0], index); }, {random({2, 2, 3}, 48)});
  const Tensor of_two = Tensor::from_vector<int64_t>({3, -1, -1, 0, -1, 1, -1, -1}, {2, 4});  // row 2 of neither
  check([of_two](const Vars& v) { return ag::gather_rows(v, of_two); }, {random({2, 2, 3}, 56), random({2, 3}, 57)});
  CHECK(ag::gather_rows(std::vector{Variable(random({4, 3}, 58)), Variable(random({2, 3}, 59))}, of_two)
            .data()
            .select(0, 2)
            .to_vector<double>() == std::vector<double>(3, 0.0));
}

TEST_CASE("loss terms") {
  check([](const Vars& v) { return ag::bce_with_logits(v[0], random({4, 3}, 50, 0.0, 1.0)); }, {random({4, 3}, 49)});
  const Tensor label = Tensor::from_vector<int32_t>({2, -1, 0, 1, -1, 2}, {6}), score = Tensor::from_floats({0.9f, 0.5f, 0.2f, 1, 0, 0.7f}, {6});
  check([&](const Vars& v) { return ag::bce_with_labels(v, label, score); }, {random({2, 3}, 60), random({2, 2, 3}, 61)});
  check([](const Vars& v) { return ag::dfl_loss(v[0], random({3, 4}, 52, 0.1, 14.9), random({3}, 53, 0.1, 1.0)); }, {random({3, 64}, 51)});

  const ag::MaskLossTargets masks{
      Tensor::from_vector<int32_t>({0, 0, 1}, {3}), Tensor::from_vector<int32_t>({1, 2, 1}, {3}),
      Tensor::from_floats({0.5f, 0.2f, 3.7f, 4.0f, 1.0f, 1.0f, 5.0f, 3.5f, 0.0f, 0.0f, 2.5f, 5.0f}, {3, 4}),
      Tensor::from_floats({0.3f, 0.2f, 0.4f}, {3})};
  std::vector<int32_t> map(2 * 5 * 5);
  for (size_t i = 0; i < map.size(); ++i) map[i] = int32_t(i * 7 % 3);
  const Tensor index_map = Tensor::from_vector(map, {2, 5, 5});
  check([&](const Vars& v) { return ag::mask_loss(v[0], v[1], index_map, masks); }, {random({3, 4}, 54), random({2, 5, 5, 4}, 55)});
}

TEST_CASE("CIoU: the gradient that the field uses, with alpha held constant") {
  // Spec example: CIoU of (1,2,5,9) with (2,1,8,6). The loss is 1 - CIoU, so signs are turned.
  const Variable boxes(Tensor::from_vector<double>({1, 2, 5, 9}, {1, 4}), true);
  const Variable loss = ag::ciou_loss(boxes, Tensor::from_vector<double>({2, 1, 8, 6}, {1, 4}), Tensor::full({1}, 1.0, DType::kF64));
  CHECK(1.0 - loss.data().item() == doctest::Approx(0.186702391).epsilon(1e-6));
  loss.backward();
  const double expected[] = {0.046591302, -0.076083078, 0.089676514, -0.031521496};
  for (int i = 0; i < 4; ++i) CHECK(-boxes.grad().data<double>()[i] == doctest::Approx(expected[i]).epsilon(1e-5));
}
