// Statistics that a convolution gathers on its way, against sums in double over what it has stored.
#include "tensor/cpu/channel_moments.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/conv.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/random.h"
#include "tensor/tensor.h"

namespace tessera {
namespace {

void check_stats(const Shape& x_shape, const Shape& w_shape, const ConvParams& p, DType type, int64_t neighbours = 0) {
  CAPTURE(to_string(x_shape));
  CAPTURE(to_string(w_shape));
  CAPTURE(name_of(type));
  const Tensor x = Tensor::empty(x_shape), w = Tensor::empty(w_shape);
  ops::uniform(x, {3, RngPurpose::kTest, 1}, 1.0, 3.0);  // means far from zero
  ops::uniform(w, {3, RngPurpose::kTest, 2}, -0.1, 0.2);
  const Tensor xt = x.to(type), wt = w.to(type);
  Shape wide = ops::conv2d_shape(x_shape, w_shape, p);
  const int64_t channels = wide[3];
  wide[3] += neighbours;
  const Tensor all = Tensor::zeros(wide, type), y = all.narrow(3, 0, channels);
  std::vector<double> sums(size_t(channels), NAN), squares(size_t(channels), NAN);
  cpu::conv2d_with_stats(xt.image(), wt.filter(), y.image(), p, sums.data(), squares.data());
  const std::vector<float> stored = y.contiguous().to(DType::kF32).to_vector<float>();
  const auto rows = stored.size() / size_t(channels);
  for (size_t c = 0; c < size_t(channels); ++c) {
    double sum = 0, about_mean = 0;
    for (size_t r = 0; r < rows; ++r) sum += stored[r * size_t(channels) + c];
    const double expected = sum / double(rows);
    for (size_t r = 0; r < rows; ++r) about_mean += std::pow(stored[r * size_t(channels) + c] - expected, 2);
    CHECK(sums[c] == doctest::Approx(sum).epsilon(1e-6));
    CHECK(squares[c] == doctest::Approx(about_mean).epsilon(1e-5));
  }
  std::vector<double> sums1(sums.size()), squares1(squares.size());  // by one thread: the same bits
  const int threads = compute_threads();
  set_compute_threads(1);
  cpu::conv2d_with_stats(xt.image(), wt.filter(), y.image(), p, sums1.data(), squares1.data());
  set_compute_threads(threads);
  CHECK(sums1 == sums);
  CHECK(squares1 == squares);
}

}  // namespace

TEST_CASE("statistics that a convolution gathers are those of its result") {
  for (const char* choice : {"auto", "direct"}) {
    set_conv_choice(choice);
    CAPTURE(choice);
    for (const DType type : {DType::kF32, DType::kBF16}) {
      check_stats({2, 37, 30, 16}, {24, 3, 3, 16}, {1, 1}, type);     // tiles cut at the right and below
      check_stats({3, 40, 40, 32}, {32, 3, 3, 32}, {1, 1}, type);     // whole rows of tiles
      check_stats({1, 64, 64, 16}, {32, 3, 3, 16}, {2, 1}, type, 8);  // in a slice
      check_stats({16, 4, 4, 64}, {64, 3, 3, 64}, {1, 1}, type);      // few tiles: outputs shared out
      check_stats({1, 20, 28, 64}, {72, 3, 3, 64}, {1, 1}, type, 8);  // and blocks that end within a row of tiles
      check_stats({2, 33, 35, 3}, {16, 3, 3, 3}, {2, 1}, type);
      check_stats({5, 2, 2, 64}, {48, 3, 3, 64}, {1, 1}, type);     // windows
      check_stats({1, 13, 11, 64}, {5, 1, 1, 64}, {1, 0}, type);    // few channels side by side, pixels left over
      check_stats({1, 6, 6, 512}, {512, 1, 1, 512}, {1, 0}, type);  // channels shared out
      check_stats({1, 13, 11, 2048}, {288, 1, 1, 2048}, {1, 0}, type);  // and their weights
      check_stats({1, 1, 1, 16}, {16, 1, 1, 16}, {1, 0}, type);     // a single pixel
    }
  }
  set_conv_choice("auto");
}

}  // namespace tessera
