// bf16 in the vector kernels: conversions bit by bit, and outputs that are written past the caches. The op cases (tests/op_cases)
// hold every kernel to the reference.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>

#include "tests/cpu/support.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

// Runs `body` on every vector target with 1 and 3 threads.
template <class F>
void on_each_target(const F& body) {
  if (cpu::runnable_targets().empty()) MESSAGE("skipped: this CPU has no AVX2");
  const Restore restore;
  CpuBackend backend;
  for (std::string_view target : cpu::runnable_targets()) {
    INFO("target " << std::string(target));
    cpu::force_target(target);
    for (int threads : {1, 3}) {
      set_compute_threads(threads);
      body(static_cast<Backend&>(backend));
    }
  }
}

StridedView row_of(void* p, DType t, int64_t n) { return {p, t, {n}, {1}}; }

}  // namespace

TEST_CASE("bf16: f32 rounds to nearest even in every bit, as BFloat16 does") {
  std::vector<float> values;
  for (uint32_t upper = 0; upper < 0x10000; upper += 3) {
    for (uint32_t lower : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      values.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  for (uint32_t special : {0x7f7fffffu, 0x7f800000u, 0x7f800001u, 0x7fffffffu, 0x7fc00000u, 0x7f7f8000u, 0x7f7f7fffu, 0x00000001u,
                           0x00008000u, 0x00018000u}) {
    values.push_back(std::bit_cast<float>(special));
    values.push_back(std::bit_cast<float>(special | 0x80000000u));
  }
  const auto n = int64_t(values.size());
  on_each_target([&](Backend& b) {
    std::vector<BFloat16> narrow(values.size());
    b.copy(row_of(values.data(), DType::kF32, n), row_of(narrow.data(), DType::kBF16, n));
    int64_t wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) wrong += narrow[i].bits != BFloat16(values[i]).bits;
    CHECK(wrong == 0);
  });
}

TEST_CASE("bf16: every value survives the way to f32 and back, and a product with 1") {
  std::vector<BFloat16> all(0x10000), back(all.size()), scaled(all.size());
  for (size_t i = 0; i < all.size(); ++i) all[i].bits = uint16_t(i);
  const auto n = int64_t(all.size());
  on_each_target([&](Backend& b) {
    std::vector<float> wide(all.size());
    b.copy(row_of(all.data(), DType::kBF16, n), row_of(wide.data(), DType::kF32, n));
    b.copy(row_of(wide.data(), DType::kF32, n), row_of(back.data(), DType::kBF16, n));
    b.scale({all.data(), DType::kBF16, 1, n, n}, 1.0, {scaled.data(), DType::kBF16, 1, n, n});
    int64_t wrong = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const bool nan = std::isnan(float(all[i]));
      wrong += !nan && std::bit_cast<uint32_t>(wide[i]) != uint32_t(all[i].bits) << 16;
      wrong += nan ? !std::isnan(wide[i]) || !std::isnan(float(back[i])) || !std::isnan(float(scaled[i]))
                   : back[i].bits != all[i].bits || scaled[i].bits != all[i].bits;
    }
    CHECK(wrong == 0);
  });
}

TEST_CASE("bf16: silu and its derivative over the whole range") {
  std::vector<BFloat16> x;
  for (int i = 0; i < 0x10000; ++i) {
    BFloat16 v;
    v.bits = uint16_t(i);
    if (float(v) != -std::numeric_limits<float>::infinity()) x.push_back(v);  // its limit is 0, the formula NaN: left undefined
  }
  const auto n = int64_t(x.size());
  const std::vector<BFloat16> ones(x.size(), BFloat16(1.0f));
  std::vector<BFloat16> y(x.size()), dx(x.size());
  const auto rows = [n](const std::vector<BFloat16>& v) {
    return RowsView{const_cast<BFloat16*>(v.data()), DType::kBF16, 1, n, n};
  };
  on_each_target([&](Backend& b) {
    b.unary(UnaryOp::kSilu, rows(x), rows(y));
    b.unary_backward(UnaryOp::kSilu, rows(x), rows(ones), rows(dx), false);
    for (size_t i = 0; i < x.size(); ++i) {
      const double v = double(float(x[i]));
      const double s = 1 / (1 + std::exp(-v));
      // Half a unit in the last place and the error of the sigmoid, which is zero from -87 on.
      const auto close = [](BFloat16 got, double want) {
        if (std::isnan(want)) return std::isnan(float(got));
        return std::abs(double(float(got)) - want) <= (0x1p-8 + 2e-5) * std::abs(want) + 1e-36;
      };
      if (std::isinf(v)) {
        CHECK(std::isinf(float(y[i])));
      } else if (!close(y[i], v * s) || !(close(dx[i], s * (1 + v * (1 - s))) || std::abs(v + 1.2785) < 0.02)) {  // there it is 0
        FAIL_CHECK("x = " << v << ": silu " << float(y[i]) << ", derivative " << float(dx[i]));
        return;
      }
    }
  });
}

TEST_CASE("bf16: outputs that bypass the caches") {
  const int64_t rows = (1 << 19) + 5, cols = 16;  // 16 MiB and a rest
  const Tensor x = Tensor::empty({rows, cols}), dy = Tensor::empty({rows, cols});
  Backend& b = backend_for(Device::cpu());
  b.uniform(x.rows(), {.seed = 1, .purpose = RngPurpose::kTest}, -2, 3);
  b.uniform(dy.rows(), {.seed = 2, .purpose = RngPurpose::kTest}, -1, 1);
  Rows k = Rows::random(4, cols, 0, 3, 0.5f, 1.5f);
  const BatchNormView bn{&k.at(0, 0), &k.at(1, 0), &k.at(2, 0), &k.at(3, 0)};
  const Tensor x16 = Tensor::empty({rows, cols}, DType::kBF16), dy16 = Tensor::empty({rows, cols}, DType::kBF16);
  const Tensor y = Tensor::empty({rows, cols}), dx = Tensor::empty({rows, cols});
  const Tensor y16 = Tensor::empty({rows, cols}, DType::kBF16), dx16 = Tensor::empty({rows, cols}, DType::kBF16);
  on_each_target([&](Backend& backend) {
    backend.copy(x.strided(), x16.strided());
    backend.copy(dy.strided(), dy16.strided());
    backend.copy(x16.strided(), x.strided());  // now both of the same values
    backend.copy(dy16.strided(), dy.strided());
    Rows sums(4, cols, 0);
    backend.batch_norm_apply(x.rows(), bn, Activation::kSilu, dy.rows(), y.rows());
    backend.batch_norm_apply(x16.rows(), bn, Activation::kSilu, dy16.rows(), y16.rows());
    backend.batch_norm_backward(x.rows(), dy.rows(), bn, Activation::kSilu, dx.rows(), &sums.at(0, 0), &sums.at(1, 0), false);
    backend.batch_norm_backward(x16.rows(), dy16.rows(), bn, Activation::kSilu, dx16.rows(), &sums.at(2, 0), &sums.at(3, 0), false);
    for (const auto& [narrow, wide] : {std::pair(&y16, &y), std::pair(&dx16, &dx)}) {
      const auto* p = narrow->data<BFloat16>();
      const float* q = wide->data<float>();
      int64_t wrong = 0;
      for (int64_t i = 0; i < rows * cols; ++i) {
        wrong += !(std::abs(float(p[i]) - q[i]) <= 0x1.02p-8f * std::abs(q[i]) + 3e-6f);
      }
      CHECK(wrong == 0);
    }
    for (int64_t c = 0; c < cols; ++c) {
      CHECK(std::abs(sums.at(2, c) - sums.at(0, c)) < 1e-7f * float(rows));
      CHECK(std::abs(sums.at(3, c) - sums.at(1, c)) < 1e-7f * float(rows));
    }
  });
}
