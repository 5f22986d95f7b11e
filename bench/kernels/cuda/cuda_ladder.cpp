// A study on the GPU: the 3x3 convolution and the backward pass of batch norm, from the formula to the kernels that train, rung by
// rung (conv_rungs.cu, norm_rungs.cu say what each rung is about). Every rung is checked against sums in double, then timed with a
// cold cache: a buffer larger than it is written before every run. Medians.
//
//   cuda_ladder [--batch 16] [--size 80] [--in 64] [--out 64] [--runs 9] [--device 0]
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <string>

#include "bench/kernels/cuda/problems.h"
#include "cuda/check.h"
#include "cuda/install.h"
#include "tensor/cpu/install.h"

namespace {

using namespace tessera;

// Milliseconds of the work alone, median of several runs.
double cold_ms(int runs, const std::function<void()>& work) {
  static const Tensor flush = Tensor::empty({int64_t(256) << 20}, DType::kU8, Device::cuda());
  cudaEvent_t begin = nullptr, end = nullptr;
  TESSERA_CUDA_CHECK(cudaEventCreate(&begin));
  TESSERA_CUDA_CHECK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < runs; ++i) {
    flush.fill(i % 2);
    TESSERA_CUDA_CHECK(cudaEventRecord(begin, nullptr));
    work();
    TESSERA_CUDA_CHECK(cudaEventRecord(end, nullptr));
    TESSERA_CUDA_CHECK(cudaEventSynchronize(end));
    TESSERA_CUDA_CHECK(cudaEventElapsedTime(&times.emplace_back(), begin, end));
  }
  TESSERA_CUDA_CHECK(cudaEventDestroy(begin));
  TESSERA_CUDA_CHECK(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// One line for each rung; false: one of them is wrong.
template <class Problem, class F>
bool climb(const Problem& problem, const std::vector<study::Rung<F>>& rungs, int runs, double work, const char* unit) {
  bool right = true;
  double before = 0;
  for (const auto& rung : rungs) {
    problem.run(rung);
    const double error = problem.error(64);
    right = right && error <= study::kLadderTolerance;
    const double ms = cold_ms(runs, [&] { problem.run(rung); });
    fmt::print("  {:<22} {:>10.4f} ms {:>10.2f} {}  {:>7}  error {:.1e}{}{}\n", rung.name, ms, work / ms / 1e9, unit,
               before > 0 ? fmt::format("{:.1f} x", before / ms) : "", error, rung.repeatable ? "" : "  (other bits on every run)",
               error <= study::kLadderTolerance ? "" : "  WRONG");
    before = ms;
  }
  return right;
}

}  // namespace

int main(int count, char** arguments) try {
  std::map<std::string, int64_t> options = {{"--batch", 16}, {"--size", 80}, {"--in", 64},
                                            {"--out", 64},   {"--runs", 9},  {"--device", 0}};
  for (int i = 1; i < count; i += 2) {
    const auto option = options.find(arguments[i]);
    const std::string value = i + 1 < count ? arguments[i + 1] : "";
    const bool fits = option != options.end() &&
                      std::from_chars(value.data(), value.data() + value.size(), option->second).ptr == value.data() + value.size();
    if (!fits || value.empty() || option->second < (option->first == "--device" ? 0 : 1)) {
      fmt::print(stderr,
                 "usage: cuda_ladder [--batch N] [--size PIXELS] [--in CHANNELS] [--out CHANNELS] [--runs N] [--device I]\n");
      return 2;
    }
  }
  if (options["--in"] % 16 != 0 || options["--out"] % 16 != 0) {
    fmt::print(stderr, "cuda_ladder: --in and --out must be multiples of 16\n");
    return 2;
  }
  install_cpu_backends();
  install_cuda_backend(int(options["--device"]));
  fmt::print("{}\n", describe_cuda());
  const int64_t n = options["--batch"], size = options["--size"], in = options["--in"], out = options["--out"];
  const int runs = int(options["--runs"]);
  const study::ConvProblem conv(n, size, in, out);
  fmt::print("convolution 3x3, {} x {} x {} x {} to {}, bf16: {:.2f} GFLOP\n", n, size, size, in, out, conv.flops() / 1e9);
  const bool conv_right = climb(conv, study::conv_rungs(), runs, conv.flops(), "TFLOP/s");
  const study::NormProblem norm(n * size * size, out);
  fmt::print("batch norm with SiLU, backward, {} x {}, bf16: {:.1f} MB at least\n", n * size * size, out, norm.bytes() / 1e6);
  const bool norm_right = climb(norm, study::norm_rungs(), runs, norm.bytes(), "TB/s");
  return conv_right && norm_right ? 0 : 1;
} catch (const tessera::Error& e) {
  fmt::print(stderr, "error: {}\n", e.what());
  return int(e.code());
}
