// Runs the same op on the reference and on the CPU backend: every vector target of this machine, 1 to 3 threads.
#pragma once

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "tensor/backend.h"
#include "tensor/base/parallel.h"
#include "tensor/cpu/cpu_backend.h"
#include "tensor/cpu/targets.h"

namespace tessera::testing {

inline constexpr float kCanary = -12345.5f;

// A matrix with `gap` canaries after each row and a margin of them on both sides. Pitched writes that stray change a canary.
struct Rows {
  Rows(int64_t rows, int64_t cols, int64_t gap)
      : buffer(size_t(rows * (cols + gap)) + 2 * kMargin, kCanary), rows_(rows), cols_(cols), gap_(gap) {}

  static Rows random(int64_t rows, int64_t cols, int64_t gap, uint32_t seed, float low = -3, float high = 3) {
    Rows r(rows, cols, gap);
    std::mt19937 generator(seed);
    std::uniform_real_distribution<float> uniform(low, high);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t c = 0; c < cols; ++c) r.at(i, c) = uniform(generator);
    }
    return r;
  }

  float& at(int64_t row, int64_t col) { return buffer[size_t(row * (cols_ + gap_) + col) + kMargin]; }
  RowsView view() { return {buffer.data() + kMargin, DType::kF32, rows_, cols_, cols_ + gap_}; }
  ImageView image(int64_t n, int64_t h, int64_t w) { return {buffer.data() + kMargin, DType::kF32, n, h, w, cols_, cols_ + gap_}; }
  StridedView strided() { return {buffer.data() + kMargin, DType::kF32, {rows_, cols_}, {cols_ + gap_, 1}}; }

  static constexpr size_t kMargin = 16;  // keeps the data aligned as the allocator's is
  std::vector<float> buffer;
  int64_t rows_, cols_, gap_;
};

using Outputs = std::vector<float>;

inline void append(Outputs& outputs, const Rows& rows) { outputs.insert(outputs.end(), rows.buffer.begin(), rows.buffer.end()); }

// |got - want| <= absolute + relative |want|, NaN equals NaN, infinities and canaries exactly.
inline void check_close(const Outputs& got, const Outputs& want, double absolute, double relative) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const double g = double(got[i]), w = double(want[i]);
    if (std::isnan(w)                         ? std::isnan(g)
        : std::isinf(w) || want[i] == kCanary ? g == w
                                              : std::abs(g - w) <= absolute + relative * std::abs(w))
      continue;
    FAIL_CHECK("element " << i << ": got " << g << ", expected " << w);
    return;
  }
}

// The state that the comparison changes, put back at the end.
struct Restore {
  ~Restore() {
    cpu::force_target(target);
    set_compute_threads(threads);
  }
  std::string_view target = cpu::current_target();
  int threads = compute_threads();
};

// `op(backend)` builds fresh outputs from its own inputs and returns them. They must agree with the reference within the tolerance,
// and bitwise among numbers of threads.
template <class F>
void compare(const F& op, double absolute, double relative) {
  RefBackend reference;
  const Outputs want = op(static_cast<Backend&>(reference));
  if (cpu::runnable_targets().empty()) {
    MESSAGE("skipped: this CPU has no AVX2");
    return;
  }
  const Restore restore;
  CpuBackend backend;
  for (std::string_view target : cpu::runnable_targets()) {
    INFO("target " << std::string(target));
    cpu::force_target(target);
    Outputs with_one;
    for (int threads : {1, 2, 3}) {
      set_compute_threads(threads);
      const Outputs got = op(static_cast<Backend&>(backend));
      if (threads == 1) {
        check_close(got, want, absolute, relative);
        with_one = got;
      } else {
        const bool bitwise_equal =
            got.size() == with_one.size() && std::memcmp(got.data(), with_one.data(), got.size() * sizeof(float)) == 0;
        CHECK_MESSAGE(bitwise_equal, threads << " threads");
      }
    }
  }
}

}  // namespace tessera::testing
