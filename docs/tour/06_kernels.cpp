// Chapter 6 of the tour; the text is 06_kernels.md.
#include <atomic>
#include <chrono>

#include "autograd/grad_mode.h"
#include "docs/tour/tour.h"
#include "nn/init.h"
#include "nn/layers/conv_bn_act.h"
#include "tensor/base/parallel.h"
#include "tensor/cpu/cpu_backend.h"
#include "tensor/cpu/install.h"
#include "tensor/cpu/peak.h"
#include "tests/support/op_case.h"

using namespace tessera;
using tour::claim;
using tour::heading;

namespace {

// y[., o] += x[., i] w[o, ky, kx, i] for a row of outputs: loops exchanged so that the innermost one runs over output channels,
// whose weights are neighbours once the filter is turned to (ky, kx, i, o). The compiler makes vectors of it.
void convolve_row(const ImageView& x, const FilterView& w, const float* turned, const ImageView& y, const ConvParams& p, int64_t n,
                  int64_t oy) {
  for (int64_t ox = 0; ox < y.w; ++ox) {
    float* out = data<float>(y) + ((n * y.h + oy) * y.w + ox) * y.pitch;
    std::fill_n(out, y.c, 0.0f);
    for (int64_t ky = 0; ky < w.kh; ++ky) {
      for (int64_t kx = 0; kx < w.kw; ++kx) {
        const int64_t iy = oy * p.stride + ky - p.pad, ix = ox * p.stride + kx - p.pad;
        if (iy < 0 || iy >= x.h || ix < 0 || ix >= x.w) continue;
        const float* in = data<float>(x) + ((n * x.h + iy) * x.w + ix) * x.pitch;
        const float* weights = turned + (ky * w.kw + kx) * w.i * w.o;
        for (int64_t i = 0; i < w.i; ++i, weights += w.o) {
          for (int64_t o = 0; o < w.o; ++o) out[o] += in[i] * weights[o];
        }
      }
    }
  }
}

// The vectorised backend with a convolution of our own.
class OwnConvBackend : public CpuBackend {
 public:
  std::string_view name() const override { return "own conv"; }

  void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) override {
    const bool plain = epilogue.bias == nullptr && epilogue.activation == Activation::kNone && epilogue.residual.p == nullptr;
    if (x.t != DType::kF32 || y.t != DType::kF32 || !plain) return CpuBackend::conv2d(x, w, y, p, epilogue);
    ++calls;
    std::vector<float> turned(size_t(w.o * w.kh * w.kw * w.i));
    for (int64_t o = 0; o < w.o; ++o) {
      for (int64_t k = 0; k < w.kh * w.kw * w.i; ++k) turned[size_t(k * w.o + o)] = data<float>(w)[o * w.kh * w.kw * w.i + k];
    }
    parallel_chunks(y.n * y.h, [&](int64_t row) { convolve_row(x, w, turned.data(), y, p, row / y.h, row % y.h); });
  }

  // What else would get around it: filters in the built-in kernel's order, and statistics gathered by the built-in kernel.
  int64_t packed_filter_size(FilterView, const ConvParams&) override { return 0; }
  void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps, const RunningStatsView& running,
                         void* mean, void* rstd) override {
    RefBackend::conv2d_with_stats(x, w, y, p, eps, running, mean, rstd);  // conv2d, then batch_norm_stats
  }

  std::atomic<int> calls = 0;
};

// A mistake to find: pixels are taken to be as far apart as the channels are many.
class ForgetsPitch final : public OwnConvBackend {
 public:
  void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) override {
    y.pitch = y.c;
    OwnConvBackend::conv2d(x, w, y, p, epilogue);
  }
};

double milliseconds(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    const auto start = Clock::now();
    work();
    best = std::min(best, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace

int main() {
  install_cpu_backends();
  Backend& built_in = backend_for(Device::cpu());

  heading("Is it right? The case of chapter 2, on our backend");
  using namespace testing;
  const ConvParams params{.stride = 1, .pad = 1};
  const OpCase c{
      .method = "conv2d",
      .detail = "3x3",
      .slots = {{"x", {2, 9, 7, 16}}, {"w", {24, 3, 3, 16}, Role::kIn, Fit::kDense}, {"y", {2, 9, 7, 24}, Role::kOut}},
      .run = [&](Backend& b, const Bound& t, bool) { return b.conv2d(t.image("x"), t.filter("w"), t.image("y"), params, {}), 0.0; },
      .length = 3 * 3 * 16};
  const op_case::Reference reference(c, DType::kF32);
  const auto verdict = [&](Backend& b, op_case::Placement placement) -> std::string {
    const op_case::Outcome got = op_case::execute(c, b, {.type = DType::kF32, .value_type = DType::kF32, .placement = placement});
    if (got.disturbed != 0) return fmt::format("{} elements outside of the result were written", got.disturbed);
    return op_case::difference(c, DType::kF32, got, reference.once);
  };
  OwnConvBackend own;
  claim(verdict(own, op_case::Placement::kDense).empty(), "dense images: right");
  claim(verdict(own, op_case::Placement::kPitchedOdd).empty(), "slices of channels: right");
  ForgetsPitch forgetful;
  claim(verdict(forgetful, op_case::Placement::kDense).empty(), "a kernel that forgets the pitch is right on dense images");
  const std::string found = verdict(forgetful, op_case::Placement::kPitchedOdd);
  claim(!found.empty(), "and is found out on a slice: " + found);

  heading("Do its bits depend on the number of threads?");
  const Tensor x = tour::random({4, 40, 40, 32}, 1), w = tour::random({64, 3, 3, 32}, 2);
  const Tensor y = Tensor::empty({4, 40, 40, 64});
  const auto by = [&](Backend& b) { b.conv2d(x.image(), w.filter(), y.image(), params, {}); };
  const int threads = compute_threads();
  set_compute_threads(1);
  by(own);
  const Tensor alone = y.clone();
  set_compute_threads(3);
  by(own);
  set_compute_threads(threads);
  claim(tour::largest_difference(y, alone) == 0, "no: a chunk is a row, whoever works on it");

  heading("Is it fast?");
  const double operations = 2.0 * double(y.numel()) * double(3 * 3 * 32);
  const double peak = measure_multiply_add_gflops(DType::kF32);
  fmt::print("  {:24} {:>9} {:>9} {:>8}\n", "3x3, 32 to 64, 4 x 40 x 40", "ms", "GFLOP/s", "of peak");
  for (Backend* b : {find_backend("ref"), static_cast<Backend*>(&own), &built_in}) {
    const double ms = milliseconds([&] { by(*b); });
    fmt::print("  {:26} {:9.2f} {:9.1f} {:6.0f} %\n", b->name(), ms, operations / ms / 1e6, 100 * operations / ms / 1e6 / peak);
  }

  heading("A network that uses it");
  ConvBnAct block(32, 64, 3);
  init_parameters(block, 0);
  const NoGrad guard;
  const Tensor before = block.forward(Variable(x)).data();
  auto installed = std::make_unique<OwnConvBackend>();
  OwnConvBackend& running = *installed;
  install(std::move(installed));  // the last one installed runs
  claim(backend_for(Device::cpu()).name() == "own conv", "our backend is the one that runs");
  const Tensor after = block.forward(Variable(x)).data();
  claim(running.calls == 1, "the block, which knows nothing of it, has called it once");
  claim(tour::largest_difference(before, after) < 1e-4, "and gives the same features");
  block.train(false);
  block.fold();
  claim(block.forward(Variable(x)).data().shape() == after.shape(), "folded, it has bias and SiLU: left to the built-in kernel");
  return 0;
}
