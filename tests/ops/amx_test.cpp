// The bf16 kernels on AMX tiles, on plain code in the place of the instructions (tensor/cpu/amx_tiles.h): every op case, wherever
// AVX-512 has bf16. On a CPU with AMX the suite runs on the instructions themselves (TESSERA_CPU_BACKEND=amx).
#include "tensor/cpu/amx.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/base/env.h"
#include "tensor/cpu/amx_tiles.h"
#include "tensor/cpu/targets.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/random.h"
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

using namespace cpu;

// The unit of a test, and what ran before after it.
struct Unit {
  explicit Unit(TileUnit unit) { force_tile_unit(unit); }
  ~Unit() { force_tile_unit(before); }
  const TileUnit before = tile_unit();
};

// Says what is missing. Where a backend is chosen (the variants of ctest), the twin would say the same once more.
bool can_run() {
  const bool chosen = env("TESSERA_CPU_BACKEND") || env("TESSERA_CONV");
  const bool can = __builtin_cpu_supports("avx512bf16") && current_target() == "avx512" && !chosen;
  if (!can) MESSAGE("skipped: this CPU has no AVX-512-BF16, or a backend is chosen");
  return can;
}

TEST_CASE("convolution and matrix kernels in bf16 on the tiles' twin") {
  if (!can_run()) return;
  const Unit twin(TileUnit::kTwin);
  run_cases(conv_cases());
}

// A convolution as large as the network's: full blocks of tiles, tiles that start earlier, runs with and without a tail.
TEST_CASE("convolutions on the tiles' twin equal those on vectors, whatever the blocks") {
  if (!can_run()) return;
  for (const auto& [in, out, size, stride] :
       {std::tuple{32, 64, 40, 1}, {48, 32, 37, 1}, {64, 80, 20, 2}, {16, 16, 70, 1}, {96, 48, 9, 1}}) {
    CAPTURE(in);
    CAPTURE(out);
    const Tensor x = Tensor::empty({1, size, size, in}), w = Tensor::empty({out, 3, 3, in});
    ops::normal(x, {1, RngPurpose::kUser}, 0, 1);
    ops::normal(w, {2, RngPurpose::kUser}, 0, 0.05);
    const Tensor x16 = x.to(DType::kBF16), w16 = w.to(DType::kBF16);
    const ConvParams p{.stride = stride, .pad = 1};
    const Tensor dy16 = ops::conv2d(x16, w16, p);
    std::vector<float> y[2], dx[2], dw[2];
    for (int i = 0; i < 2; ++i) {
      const Unit unit(i == 0 ? TileUnit::kVectors : TileUnit::kTwin);
      const Tensor out16 = ops::conv2d(x16, w16, p);
      y[i] = out16.to(DType::kF32).to_vector<float>();
      dx[i] = ops::conv2d_backward_data(out16, w16, x16.shape(), p).to(DType::kF32).to_vector<float>();
      const Tensor gradient = Tensor::full(w.shape(), 1.0);
      ops::conv2d_backward_weight(x16, dy16, gradient, p, true);
      dw[i] = gradient.to_vector<float>();
    }
    // Two sums in another order, each rounded to bf16.
    const auto close = [](float a, float b) { return std::abs(a - b) <= 0.008f * std::abs(b) + 0.004f; };
    CHECK(std::equal(y[0].begin(), y[0].end(), y[1].begin(), y[1].end(), close));
    CHECK(std::equal(dx[0].begin(), dx[0].end(), dx[1].begin(), dx[1].end(),
                     [](float a, float b) { return std::abs(a - b) <= 0.008f * std::abs(b) + 0.02f; }));
    // f32 sums of up to 4900 products in another order; they are 30 on average.
    CHECK(std::equal(dw[0].begin(), dw[0].end(), dw[1].begin(), dw[1].end(),
                     [](float a, float b) { return std::abs(a - b) <= 1e-4f * std::abs(b) + 2e-3f; }));
  }
}

// Otherwise the twin would show nothing.
TEST_CASE("the twin refuses what the instruction refuses, and rows of a tile are what was configured") {
  TileConfig c;
  for (int t : {0, 1}) c.rows[t] = 3, c.row_bytes[t] = 64;
  c.rows[4] = 3, c.row_bytes[4] = 8;
  c.rows[5] = 2, c.row_bytes[5] = 64;
  c.rows[6] = 4, c.row_bytes[6] = 64;
  TwinTiles::configure(c);
  BFloat16 a[3][4], b[2][32];
  for (auto& row : a) std::fill(std::begin(row), std::end(row), BFloat16(2.0f));
  for (auto& row : b) std::fill(std::begin(row), std::end(row), BFloat16(0.5f));
  TwinTiles::zero<0>();
  TwinTiles::load<4>(a, sizeof a[0]);
  TwinTiles::load<5>(b, sizeof b[0]);
  TwinTiles::multiply_add<0, 4, 5>();
  float sums[4][16];
  std::fill(&sums[0][0], &sums[0][0] + 64, -1.0f);
  TwinTiles::store<0>(sums, sizeof sums[0]);
  CHECK(sums[0][0] == 4);
  CHECK(sums[2][15] == 4);
  CHECK(sums[3][0] == -1);
  CHECK_THROWS_AS((TwinTiles::multiply_add<0, 4, 6>()), Error);
}

}  // namespace
}  // namespace tessera::testing
