// The matrix product against a sum in double: every stride order, batches, broadcast and tails, on every CPU target of this
// machine.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tensor/cpu/conv.h"
#include "tensor/cpu/targets.h"

namespace tessera {
namespace {

// A matrix in memory of its own, by rows or by columns or with gaps in both directions.
struct Matrix {
  std::vector<float> memory;
  MatrixView view;

  enum class Order { kRows, kColumns, kGaps };

  Matrix(int64_t batch, int64_t rows, int64_t cols, Order order, bool broadcast, uint64_t seed) {
    const int64_t gap = order == Order::kGaps ? 2 : 1;
    const int64_t row = order == Order::kColumns ? 1 : cols * gap + (order == Order::kGaps ? 3 : 0);
    const int64_t col = order == Order::kColumns ? rows + 5 : gap;
    const int64_t size = rows * row + cols * col;
    memory.resize(static_cast<size_t>(size * (broadcast ? 1 : batch)));
    for (float& f : memory) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      f = static_cast<float>(static_cast<int32_t>(seed >> 32)) * (1.0f / 2147483648.0f);
    }
    view = {memory.data(), DType::kF32, batch, rows, cols, broadcast ? 0 : size, row, col};
  }

  static size_t index(const MatrixView& v, int64_t b, int64_t i, int64_t j) {
    return static_cast<size_t>(b * v.batch_stride + i * v.row_stride + j * v.col_stride);
  }
  float at(int64_t b, int64_t i, int64_t j) const { return memory[index(view, b, i, j)]; }
};

TEST_CASE("matmul equals the sum in double for every order of strides") {
  using Order = Matrix::Order;
  const std::string before{cpu::current_target()};
  struct Size {
    int64_t batch, m, k, n;
    bool broadcast_a, broadcast_b;
  };
  for (const auto target : cpu::runnable_targets()) {
    cpu::force_target(target);
    for (const Size s : {Size{1, 1, 1, 1, false, false}, Size{2, 7, 33, 19, false, true}, Size{3, 45, 32, 130, true, false},
                         Size{1, 64, 600, 16, false, false}, Size{1, 5, 0, 4, false, false}}) {
      for (const Order oa : {Order::kRows, Order::kColumns, Order::kGaps}) {
        for (const Order ob : {Order::kRows, Order::kColumns, Order::kGaps}) {
          for (const Order oc : {Order::kRows, Order::kColumns, Order::kGaps}) {
            for (const bool accumulate : {false, true}) {
              const Matrix a(s.batch, s.m, s.k, oa, s.broadcast_a, 1);
              const Matrix b(s.batch, s.k, s.n, ob, s.broadcast_b, 2);
              Matrix c(s.batch, s.m, s.n, oc, false, 3);
              std::vector<float> want = c.memory;
              for (int64_t i = 0; i < s.batch * s.m * s.n; ++i) {
                const int64_t batch = i / (s.m * s.n), row = i / s.n % s.m, col = i % s.n;
                float& to = want[Matrix::index(c.view, batch, row, col)];
                double sum = accumulate ? to : 0.0;
                for (int64_t k = 0; k < s.k; ++k) sum += static_cast<double>(a.at(batch, row, k)) * b.at(batch, k, col);
                to = static_cast<float>(sum);
              }
              cpu::matmul(a.view, b.view, c.view, accumulate);
              int64_t wrong = 0;  // gaps between the elements must not change either
              for (size_t k = 0; k < want.size(); ++k)
                wrong += std::abs(c.memory[k] - want[k]) > 6e-8 * (16 + static_cast<double>(s.k));
              CAPTURE(target);
              CAPTURE(s.m);
              CAPTURE(static_cast<int>(oa) * 100 + static_cast<int>(ob) * 10 + static_cast<int>(oc));
              CHECK(wrong == 0);
            }
          }
        }
      }
    }
  }
  cpu::force_target(before);
}

}  // namespace
}  // namespace tessera
