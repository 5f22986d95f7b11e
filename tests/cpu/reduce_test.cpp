#include <doctest/doctest.h>

#include <array>
#include <limits>

#include "tests/cpu/support.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

struct Size {
  int64_t rows, cols, gap;
};

Outputs run(Backend& b, ReduceOp op, const StridedView& x, const Shape& result) {
  Rows y(1, numel(result), 0);
  b.reduce(op, x, {&y.at(0, 0), DType::kF32, result, dense_strides(result)});
  Outputs out;
  append(out, y);
  return out;
}

}  // namespace

TEST_CASE("reduce: all axes, the last, the leading ones, the middle ones; dense and pitched") {
  struct Case {
    Shape shape;
    Strides strides;
    Shape result;
  };
  const std::vector<Case> cases = {
      {{1000}, {1}, {1}},
      {{3, 5, 7, 11}, {385, 77, 11, 1}, {1, 1, 1, 1}},
      {{300, 301}, {301, 1}, {1, 1}},
      {{40, 33}, {37, 1}, {40, 1}},  // rows, pitched
      {{40, 33}, {37, 1}, {1, 33}},  // columns, pitched
      {{40, 33}, {33, 1}, {1, 33}},  // columns
      {{5000, 3}, {3, 1}, {1, 3}},
      {{9000, 16}, {16, 1}, {1, 16}},
      {{2, 20, 10, 16}, {3200, 160, 16, 1}, {2, 1, 1, 16}},  // pixels of each image
      {{2, 20, 10, 16}, {3200, 160, 16, 1}, {2, 20, 1, 1}},
      {{2, 20, 10, 16}, {3200, 160, 16, 1}, {1, 20, 1, 16}},  // left to the reference
      {{6, 8}, {1, 6}, {6, 1}},                               // transposed
      {{2, 300000}, {300000, 1}, {2, 1}},                     // long rows
      {{7, 3}, {3, 1}, {7, 3}},                               // nothing to reduce
      {{1, 1}, {1, 1}, {1, 1}},
  };
  Rows x = Rows::random(1, 600000, 0, 1);
  for (const Case& c : cases) {
    CAPTURE(to_string(c.shape));
    CAPTURE(to_string(c.result));
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMean, ReduceOp::kMax}) {
      const double terms = double(numel(c.shape)) / double(numel(c.result));
      compare(
          [&](Backend& b) {
            return run(b, op, {&x.at(0, 0), DType::kF32, c.shape, c.strides}, c.result);
          },
          op == ReduceOp::kSum ? 1e-6 * std::sqrt(terms) : 1e-6, 1e-6);
    }
  }
}

TEST_CASE("reduce: a NaN makes the sum NaN") {
  Rows x = Rows::random(50, 33, 0, 2);
  x.at(20, 7) = std::numeric_limits<float>::quiet_NaN();
  for (const Shape& result : {Shape{1, 1}, Shape{50, 1}, Shape{1, 33}}) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax})
      compare([&](Backend& b) { return run(b, op, x.strided(), result); }, 1e-5, 1e-6);
  }
}

TEST_CASE("argmax and topk share out the rows") {
  Rows x = Rows::random(700, 21, 2, 3);
  x.at(3, 5) = x.at(3, 9) = 100;  // a tie
  compare(
      [&](Backend& b) {
        std::vector<int64_t> best(700), order(700 * 4);
        Rows values(700, 4, 0);
        b.argmax(x.view(), {best.data(), DType::kI64, 700, 1, 1});
        b.topk(x.view(), values.view(), {order.data(), DType::kI64, 700, 4, 4});
        Outputs out(best.begin(), best.end());
        out.insert(out.end(), order.begin(), order.end());
        append(out, values);
        return out;
      },
      0, 0);
}

TEST_CASE("softmax and log-softmax, forward and backward") {
  for (const Size& s : std::vector<Size>{{1, 1, 0}, {700, 16, 0}, {50, 16, 48}, {33, 5, 1}, {20, 37, 0}, {3, 1000, 3}}) {
    INFO("rows " << s.rows << ", cols " << s.cols);
    Rows x = Rows::random(s.rows, s.cols, s.gap, 4, -20, 20), dy = Rows::random(s.rows, s.cols, 0, 5);
    for (bool log : {false, true}) {
      compare(
          [&](Backend& b) {
            Rows y(s.rows, s.cols, s.gap), dx(s.rows, s.cols, 2), in_place = x;
            b.softmax(x.view(), y.view(), log);
            b.softmax(in_place.view(), in_place.view(), log);
            b.softmax_backward(y.view(), dy.view(), dx.view(), log);
            Outputs out;
            for (const Rows* r : {&y, &in_place, &dx}) append(out, *r);
            return out;
          },
          2e-5, 2e-6);
    }
  }
}

TEST_CASE("softmax: large logits, -inf, NaN") {
  Rows x = Rows::random(4, 20, 0, 6);
  x.at(0, 3) = 1e30f;
  x.at(1, 4) = -std::numeric_limits<float>::infinity();
  x.at(2, 5) = std::numeric_limits<float>::quiet_NaN();
  for (bool log : {false, true}) {
    compare(
        [&](Backend& b) {
          Rows y(4, 20, 0);
          b.softmax(x.view(), y.view(), log);
          Outputs out;
          append(out, y);
          return out;
        },
        1e-6, 1e-6);
  }
}

TEST_CASE("fill and copy: dense, pitched, transposed, other types") {
  for (const Size& s : std::vector<Size>{{1, 1, 0}, {5, 3, 0}, {40, 33, 7}, {3, 50000, 0}, {2000, 16, 16}}) {
    Rows x = Rows::random(s.rows, s.cols, s.gap, 7);
    compare(
        [&](Backend& b) {
          Rows filled(s.rows, s.cols, s.gap), zero = filled, same(s.rows, s.cols, 4), transposed(s.cols, s.rows, 1);
          b.fill(filled.strided(), 2.25);
          b.fill(zero.strided(), 0);
          b.copy(x.strided(), same.strided());
          StridedView turned = x.strided();
          std::swap(turned.shape[0], turned.shape[1]);
          std::swap(turned.strides[0], turned.strides[1]);
          b.copy(turned, transposed.strided());
          b.copy({&x.at(0, 0), DType::kF32, {s.rows, s.cols}, {0, 1}}, filled.strided());  // broadcast
          Outputs out;
          for (const Rows* r : {&filled, &zero, &same, &transposed}) append(out, *r);
          return out;
        },
        0, 0);
  }
}

TEST_CASE("copy converts: u8 images to f32, pitched too, and the rest through the reference") {
  const int64_t rows = 1500, cols = 37;
  std::vector<uint8_t> bytes(size_t(rows * cols) + 5);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = uint8_t(i * 37 % 256);
  compare(
      [&](Backend& b) {
        Rows dense(rows, cols, 0), pitched(rows, cols, 3), columns(rows, cols / 2, 0);
        const StridedView x{bytes.data(), DType::kU8, {rows, cols}, {cols, 1}};
        b.copy(x, dense.strided());
        b.copy(x, pitched.strided());
        b.copy({bytes.data(), DType::kU8, {rows, cols / 2}, {cols, 2}}, columns.strided());
        std::vector<double> wide(size_t(rows * cols));
        const StridedView in_double{wide.data(), DType::kF64, {rows, cols}, {cols, 1}};
        b.copy(dense.strided(), in_double);
        b.fill({wide.data(), DType::kF64, {2}, {1}}, 0.1);
        Outputs out(wide.begin(), wide.end());
        for (const Rows* r : {&dense, &pitched, &columns}) append(out, *r);
        return out;
      },
      0, 0);
}

TEST_CASE("gather and scatter of rows") {
  const int64_t n = 3000, rows = 40, cols = 65;
  std::vector<int64_t> index(static_cast<size_t>(n));
  std::mt19937 generator(8);
  for (int64_t& i : index) i = int64_t(generator() % rows);
  Rows table = Rows::random(rows, cols, 3, 9), values = Rows::random(n, cols, 1, 10);
  compare(
      [&](Backend& b) {
        Rows gathered(n, cols, 2), sums = table;
        b.gather_rows(std::array{table.view()}, index.data(), gathered.view());
        b.scatter_add_rows(values.view(), index.data(), std::array{sums.view()});
        Outputs out;
        append(out, gathered);
        append(out, sums);
        return out;
      },
      1e-4, 1e-6);
}
