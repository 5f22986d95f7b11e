// A study: the 3x3 convolution from the formula to the kernel that trains, rung by rung on one core. Every rung is checked against
// sums in double and timed; beside it what part it reaches of the multiply-add peak measured with it, above 100 where products are saved.
//
//   conv3x3_study [--size 80] [--in 64] [--out 64] [--seconds 1]
//
// All rungs read x (H, W, I) with a border of zeros of one pixel and write y (H, W, O), channels last, stride 1:
//   y[r, c, o] = sum over ky, kx, i of x[r + ky, c + kx, i] * w[o, ky, kx, i]
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/kernels/conv3x3_study.cpp"
#include "tensor/cpu/highway.h"
// After highway.h, once per target:
#include <algorithm>
#include <cstdint>

#include "tensor/cpu/vec_math-inl.h"

#ifndef TESSERA_CONV3X3_PROBLEM
#define TESSERA_CONV3X3_PROBLEM
namespace tessera::study {
struct Problem {
  int64_t size, in, out;
  const float* x;            // (size + 2, size + 2, in)
  const float* w;            // (out, 3, 3, in)
  const float* w_by_output;  // (3, 3, in, out): what is read together lies together
  float* y;
  const float* at(int64_t r, int64_t c) const { return x + (r * (size + 2) + c) * in; }
};
}  // namespace tessera::study
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {
namespace {

using study::Problem;

// Rung 3: a vector of output channels stays in a register over the whole sum; each product needs a load of w and a broadcast of x.
void Vectorised(const Problem& p) {
  for (int64_t r = 0; r < p.size; ++r) {
    for (int64_t c = 0; c < p.size; ++c) {
      for (int64_t o = 0; o < p.out; o += int64_t(kLanes)) {
        V sum = hn::Zero(F32());
        for (int64_t ky = 0; ky < 3; ++ky) {
          const float* x = p.at(r + ky, c);  // kx and i are one run of 3 * in values
          const float* w = p.w_by_output + ky * 3 * p.in * p.out + o;
          for (int64_t k = 0; k < 3 * p.in; ++k, w += p.out) sum = hn::MulAdd(splat(x[k]), load(w), sum);
        }
        store(sum, p.y + (r * p.size + c) * p.out + o);
      }
    }
  }
}

// Rung 4: kPixels x 2 vectors of sums in registers. Each load of w serves kPixels products, each broadcast of x two, and the
// independent sums hide the latency of the multiply-add.
template <int kPixels>
HWY_INLINE void register_tile(const Problem& p, int64_t r, int64_t c, int64_t o) {
  V sums[kPixels][2];
#pragma GCC unroll 16
  for (int m = 0; m < kPixels; ++m) sums[m][0] = sums[m][1] = hn::Zero(F32());
  for (int64_t ky = 0; ky < 3; ++ky) {
    const float* x = p.at(r + ky, c);
    const float* w = p.w_by_output + ky * 3 * p.in * p.out + o;
    for (int64_t k = 0; k < 3 * p.in; ++k, w += p.out) {
      const V w0 = load(w), w1 = load(w + kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < kPixels; ++m) {
        const V value = splat(x[m * p.in + k]);
        sums[m][0] = hn::MulAdd(value, w0, sums[m][0]);
        sums[m][1] = hn::MulAdd(value, w1, sums[m][1]);
      }
    }
  }
  float* y = p.y + (r * p.size + c) * p.out + o;
#pragma GCC unroll 16
  for (int m = 0; m < kPixels; ++m, y += p.out) {
    store(sums[m][0], y);
    store(sums[m][1], y + kLanes);
  }
}

// Channels outermost: the weights of 2 vectors (3 * 3 * in * 2 vectors) stay in the L2 cache over all pixels.
void RegisterTiled(const Problem& p) {
  constexpr int kPixels = HWY_TARGET <= HWY_AVX3 ? 10 : 5;  // of 32 or 16 registers
  for (int64_t o = 0; o < p.out; o += 2 * int64_t(kLanes)) {
    for (int64_t r = 0; r < p.size; ++r) {
      int64_t c = 0;
      for (; c + kPixels <= p.size; c += kPixels) register_tile<kPixels>(p, r, c, o);
      for (; c < p.size; ++c) register_tile<1>(p, r, c, o);
    }
  }
}

}  // namespace
}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/base/rng.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/conv_tile.h"
#include "tensor/cpu/install.h"
#include "tensor/cpu/peak.h"
#include "tensor/ops/conv.h"
#include "tensor/tensor.h"

namespace tessera {

namespace cpu {
HWY_EXPORT(Vectorised);
HWY_EXPORT(RegisterTiled);
}  // namespace cpu

namespace study {
namespace {

// Rung 1: the formula. One sum at a time, one product after the other: each waits for the last.
void naive(const Problem& p) {
  for (int64_t r = 0; r < p.size; ++r) {
    for (int64_t c = 0; c < p.size; ++c) {
      for (int64_t o = 0; o < p.out; ++o) {
        float sum = 0;
        for (int64_t ky = 0; ky < 3; ++ky) {
          const float* x = p.at(r + ky, c);
          const float* w = p.w + (o * 3 + ky) * 3 * p.in;
          for (int64_t k = 0; k < 3 * p.in; ++k) sum += x[k] * w[k];
        }
        p.y[(r * p.size + c) * p.out + o] = sum;
      }
    }
  }
}

// Rung 2: the loops exchanged. One value of x meets all output channels, whose sums do not wait for each other and whose weights
// are neighbours, in blocks whose weights fit the L1 cache; but every product now loads and stores its sum.
void blocked(const Problem& p) {
  constexpr int64_t kInputs = 32, kOutputs = 64;
  std::fill_n(p.y, p.size * p.size * p.out, 0.0f);
  for (int64_t o0 = 0; o0 < p.out; o0 += kOutputs) {
    const int64_t outputs = std::min(kOutputs, p.out - o0);
    for (int64_t tap = 0; tap < 9; ++tap) {
      for (int64_t i0 = 0; i0 < p.in; i0 += kInputs) {
        const int64_t inputs = std::min(kInputs, p.in - i0);
        for (int64_t r = 0; r < p.size; ++r) {
          for (int64_t c = 0; c < p.size; ++c) {
            const float* x = p.at(r + tap / 3, c + tap % 3) + i0;
            const float* w = p.w_by_output + (tap * p.in + i0) * p.out + o0;
            float* y = p.y + (r * p.size + c) * p.out + o0;
            for (int64_t i = 0; i < inputs; ++i, w += p.out) {
              for (int64_t o = 0; o < outputs; ++o) y[o] += x[i] * w[o];
            }
          }
        }
      }
    }
  }
}

int64_t argument(int argc, char** argv, std::string_view name, int64_t fallback) {
  for (int i = 1; i + 1 < argc; i += 2) {
    if (argv[i] == name) return std::atoll(argv[i + 1]);
  }
  return fallback;
}

int run(int argc, char** argv) {
  const int64_t size = argument(argc, argv, "--size", 80), in = argument(argc, argv, "--in", 64), out = argument(argc, argv, "--out", 64);
  const double enough = double(argument(argc, argv, "--seconds", 1));
  if (size < 1 || in < 1 || out < 32 || out % 32 != 0) {
    fmt::print(stderr, "conv3x3_study: --out must be a multiple of 32, --size and --in at least 1\n");
    return 2;
  }
  install_cpu_backends();
  set_compute_threads(1);

  const Tensor inner = Tensor::empty({1, size, size, in}), w = Tensor::empty({out, 3, 3, in});
  const Tensor bordered = Tensor::zeros({1, size + 2, size + 2, in}), turned = Tensor::empty({3, 3, in, out});
  const Tensor y = Tensor::empty({1, size, size, out});
  Rng rng(1, RngPurpose::kTest, 0);
  for (const Tensor& t : {inner, w}) {
    // Numbers that bf16 holds exactly, so that its rung has the same sums.
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(BFloat16(float(rng.uniform(-1, 1))));
  }
  bordered.narrow(1, 1, size).narrow(2, 1, size).copy_from(inner);
  turned.copy_from(w.permute({1, 2, 3, 0}));
  const Problem p{size, in, out, bordered.data<float>(), w.data<float>(), turned.data<float>(), y.data<float>()};
  const Tensor inner16 = inner.to(DType::kBF16), w16 = w.to(DType::kBF16), y16 = Tensor::empty(y.shape(), DType::kBF16);

  // A sample of outputs, summed in double.
  struct Expected {
    int64_t index;
    double value, magnitude;
  };
  std::vector<Expected> expected;
  for (int64_t index = 0; index < y.numel(); index += std::max<int64_t>(1, y.numel() / 4000)) {
    Expected e{index, 0, 0};
    const int64_t o = index % out, c = index / out % size, r = index / out / size;
    for (int64_t k = 0; k < 9 * in; ++k) {
      const double product = double(p.at(r + k / (3 * in), c)[k % (3 * in)]) * double(p.w[o * 9 * in + k]);
      e.value += product;
      e.magnitude += std::abs(product);
    }
    expected.push_back(e);
  }
  const auto worst = [&](const Tensor& got, double rounding) {
    const std::vector<float> values = got.to(DType::kF32).to_vector<float>();
    double ratio = 0;
    for (const Expected& e : expected) {
      // Each of the sums may round; the result of the bf16 rung is rounded once more.
      const double allowed = double(9 * in) * 0x1p-24 * e.magnitude + rounding * std::abs(e.value) + 1e-30;
      ratio = std::max(ratio, std::abs(double(values[size_t(e.index)]) - e.value) / allowed);
    }
    return ratio;
  };

  struct Rung {
    const char* name;
    std::function<void()> run;
    DType type = DType::kF32;
    const char* choice = "direct";
  };
  std::vector<Rung> rungs = {
      {"1 naive: the formula", [&] { naive(p); }},
      {"2 blocked, output channels innermost", [&] { blocked(p); }},
      {"3 vectorised: sums in a register", [&] { HWY_DYNAMIC_DISPATCH(cpu::Vectorised)(p); }},
      {"4 register-tiled: pixels x 2 vectors", [&] { HWY_DYNAMIC_DISPATCH(cpu::RegisterTiled)(p); }},
  };
  const auto f32 = [&] { ops::conv2d(inner, w, {1, 1}, {}, Activation::kNone, {}, y); };
  const auto bf16 = [&] { ops::conv2d(inner16, w16, {1, 1}, {}, Activation::kNone, {}, y16); };
  rungs.push_back({"5 the backend's direct kernel, f32", f32});
  rungs.push_back({"6 a quarter of the products: Winograd", f32, DType::kF32, "own"});
  if (cpu::multiplies_bf16()) {
    rungs.push_back({"7 the backend's direct kernel, bf16", bf16, DType::kBF16});
    rungs.push_back({"8 bf16 through Winograd in f32", bf16, DType::kBF16, "own"});
  }
  const double flops = 2.0 * double(size * size * out) * double(9 * in);
  fmt::print("3x3 convolution, {} -> {} channels, {} x {} pixels, one core\n", in, out, size, size);
  fmt::print("{:40} {:>10} {:>10} {:>9} {:>14}\n", "rung", "ms", "GFLOP/s", "of peak", "error/allowed");
  bool correct = true;
  using Clock = std::chrono::steady_clock;
  for (const Rung& rung : rungs) {
    set_conv_choice(rung.choice);
    rung.run();
    const double error = rung.type == DType::kBF16 ? worst(y16, 0x1p-8) : worst(y, 0);
    correct = correct && error <= 1;
    const double peak = measure_multiply_add_gflops(rung.type);
    std::vector<double> times;
    const auto start = Clock::now();
    do {
      const auto before = Clock::now();
      rung.run();
      times.push_back(std::chrono::duration<double>(Clock::now() - before).count());
    } while (std::chrono::duration<double>(Clock::now() - start).count() < enough);
    std::nth_element(times.begin(), times.begin() + int64_t(times.size() / 2), times.end());
    const double t = times[times.size() / 2];
    fmt::print("{:40} {:10.3f} {:10.2f} {:7.1f} % {:14.3f}\n", rung.name, t * 1e3, flops / t / 1e9, 100 * flops / t / 1e9 / peak, error);
  }
  if (!correct) fmt::print(stderr, "conv3x3_study: a rung is wrong\n");
  return correct ? 0 : 1;
}

}  // namespace
}  // namespace study
}  // namespace tessera

int main(int argc, char** argv) { return tessera::study::run(argc, argv); }
#endif
