// Every rung of the ladders (bench/kernels/cuda) against sums in double, on the emulated GPU.
#include <doctest/doctest.h>

#include <string>

#include "bench/kernels/cuda/problems.h"
#include "tests/cuda_host/emulator.h"

namespace tessera::testing {
namespace {

TEST_CASE("ladder of the convolution: every rung is right") {
  // Sizes at which tiles end inside the image, in the middle of a line, and do not fill the channels.
  for (const auto& [n, size, in, out] : {std::tuple{2, 9, 16, 32}, {1, 7, 48, 80}, {1, 12, 96, 64}}) {
    const study::ConvProblem problem(n, size, in, out);
    for (const auto& rung : study::conv_rungs()) {
      CAPTURE(std::string(rung.name));
      problem.y.fill(0);
      problem.run(rung);
      CHECK(problem.error(40) <= study::kLadderTolerance);
    }
  }
  CHECK(emulated::take_reports().empty());
}

TEST_CASE("ladder of batch norm, backward: every rung is right, and those that say so repeat their bits") {
  for (const auto& [rows, cols] : {std::pair{300, 48}, {1500, 16}}) {
    const study::NormProblem problem(rows, cols);
    for (const auto& rung : study::norm_rungs()) {
      CAPTURE(std::string(rung.name));
      problem.dx.fill(0);
      problem.run(rung);
      CHECK(problem.error(rows) <= study::kLadderTolerance);
      const auto first = problem.sums.to_vector<float>();
      emulated::set_seed(emulated::seed() + 1);  // another order of blocks and threads
      problem.run(rung);
      if (rung.repeatable) CHECK(problem.sums.to_vector<float>() == first);
    }
  }
  CHECK(emulated::take_reports().empty());
}

}  // namespace
}  // namespace tessera::testing
