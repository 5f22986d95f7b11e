#include <doctest/doctest.h>

#include <limits>

#include "tests/cpu/support.h"
#include "tests/support/every.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

struct Size {
  int64_t rows, cols, gap;
};
const std::vector<Size> kSizes = {{1, 1, 0},  {1, 15, 0}, {3, 17, 0},    {5, 16, 3},
                                  {7, 33, 5}, {40, 3, 1}, {300, 257, 0}, {900, 48, 16}};
float lowest_argument(UnaryOp op) { return op == UnaryOp::kLog || op == UnaryOp::kSqrt ? 0.01f : -9.0f; }

}  // namespace

TEST_CASE("unary: forward and backward agree with the reference, pitched and dense, whole vectors and tails") {
  for (UnaryOp op : every<UnaryOp>()) {
    CAPTURE(std::string(name_of(op)));
    for (const Size& s : kSizes) {
      Rows x = Rows::random(s.rows, s.cols, s.gap, 1, lowest_argument(op), 9);
      Rows dy = Rows::random(s.rows, s.cols, 0, 2);
      const Rows old = Rows::random(s.rows, s.cols, s.gap, 3);
      compare(
          [&](Backend& b) {
            Rows y(s.rows, s.cols, s.gap), dx(s.rows, s.cols, 2), sum = old, in_place = x;
            b.unary(op, x.view(), y.view());
            b.unary(op, in_place.view(), in_place.view());
            b.unary_backward(op, x.view(), dy.view(), dx.view(), false);
            b.unary_backward(op, x.view(), dy.view(), sum.view(), true);
            Outputs out;
            for (const Rows* r : {&y, &dx, &sum, &in_place}) append(out, *r);
            return out;
          },
          2e-6, 1e-6);
    }
  }
}

TEST_CASE("unary: a few ulp over the whole range, NaN, infinities and numbers that overflow") {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> points = {0.0f,   -0.0f, std::numeric_limits<float>::quiet_NaN(), infinity, 1e-38f, 1e-42f, 88.0f, 89.0f,
                               100.0f, 1e30f, std::numeric_limits<float>::max(),       0.625f,   0.1f,   1.0f,   20.0f};
  for (int i = -4000; i <= 4000; ++i) points.push_back(float(i) * 0.0225f);
  for (UnaryOp op : every<UnaryOp>()) {
    CAPTURE(std::string(name_of(op)));
    std::vector<float> values;
    for (float p : points) {
      for (float v : {p, -p}) {
        // The limit of silu at -infinity is 0, its formula NaN: left undefined.
        if (op == UnaryOp::kSilu && v == -infinity) continue;
        values.push_back(v);
      }
    }
    const auto n = int64_t(values.size());
    Rows x(1, n, 0);
    for (int64_t i = 0; i < n; ++i) x.at(0, i) = values[size_t(i)];
    compare(
        [&](Backend& b) {
          Rows y(1, n, 0);
          b.unary(op, x.view(), y.view());
          Outputs out;
          append(out, y);
          return out;
        },
        1e-36, 4e-7);  // e^-|x| is zero from 88 on
  }
}

TEST_CASE("unary: outputs that bypass the caches") {
  Rows x = Rows::random(1, (4 << 20) + 37, 0, 4);
  compare(
      [&](Backend& b) {
        Rows y(1, (4 << 20) + 37, 0);
        b.scale(x.view(), 0.7, y.view());
        Outputs out;
        append(out, y);
        return out;
      },
      0, 2e-7);
}

TEST_CASE("add_scaled and scale") {
  for (const Size& s : kSizes) {
    Rows x = Rows::random(s.rows, s.cols, s.gap, 1);
    const Rows start = Rows::random(s.rows, s.cols, 4, 2);
    compare(
        [&](Backend& b) {
          Rows y = start, z(s.rows, s.cols, 1);
          b.add_scaled(x.view(), 1.7, y.view());
          b.scale(x.view(), -0.3, z.view());
          Outputs out;
          append(out, y);
          append(out, z);
          return out;
        },
        1e-6, 1e-6);
  }
}

TEST_CASE("binary: equal shapes and every kind of broadcast") {
  struct Case {
    Shape shape;
    Strides a, b;  // strides into buffers of 4096 values
  };
  const std::vector<Case> cases = {
      {{7}, {1}, {1}},
      {{5, 33}, {33, 1}, {33, 1}},  // dense
      {{5, 33}, {40, 1}, {33, 1}},  // a slice of channels
      {{6, 17}, {17, 1}, {0, 1}},   // a vector for every row
      {{6, 17}, {17, 1}, {1, 0}},   // a number for every row
      {{6, 17}, {0, 0}, {17, 1}},   // one number
      {{2, 3, 4, 5}, {60, 20, 5, 1}, {0, 5, 0, 1}},
      {{2, 3, 4, 5}, {5, 0, 0, 1}, {60, 20, 5, 1}},
      {{4, 6}, {1, 4}, {6, 1}},  // transposed: the reference does it
      {{3, 1}, {1, 1}, {0, 1}},
      {{}, {}, {}},
  };
  Rows left = Rows::random(1, 4096, 0, 5, 0.5f, 2), right = Rows::random(1, 4096, 0, 6, 0.5f, 2);
  for (const Case& c : cases) {
    CAPTURE(to_string(c.shape));
    for (BinaryOp op :
         {BinaryOp::kAdd, BinaryOp::kSubtract, BinaryOp::kMultiply, BinaryOp::kDivide, BinaryOp::kMaximum, BinaryOp::kMinimum}) {
      compare(
          [&](Backend& b) {
            Rows y(1, numel(c.shape), 0);
            b.binary(op, {&left.at(0, 0), DType::kF32, c.shape, c.a}, {&right.at(0, 0), DType::kF32, c.shape, c.b},
                     {&y.at(0, 0), DType::kF32, c.shape, dense_strides(c.shape)});
            Outputs out;
            append(out, y);
            return out;
          },
          0, 1e-7);
    }
  }
}

TEST_CASE("binary: NaN in either operand, large dense operands") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int64_t n = 70001;
  Rows left = Rows::random(1, n, 0, 7), right = Rows::random(1, n, 0, 8);
  left.at(0, 3) = nan;
  right.at(0, 5) = nan;
  for (BinaryOp op : {BinaryOp::kAdd, BinaryOp::kMaximum, BinaryOp::kMinimum}) {
    compare(
        [&](Backend& b) {
          Rows y(1, n, 0);
          b.binary(op, left.strided(), right.strided(), y.strided());
          Outputs out;
          append(out, y);
          return out;
        },
        0, 1e-7);
  }
}
