// Every convolution kernel against a direct sum in double, for every CPU target of this machine: tails, pitches, strides, pads.
#include "tensor/cpu/conv.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/conv_plan.h"
#include "tensor/cpu/conv_scratch.h"
#include "tensor/cpu/targets.h"
#include "tensor/cpu/winograd.h"

namespace tessera {
namespace {

constexpr float kCanary = 12345.0f;

float value(uint64_t& state) {  // in [-1, 1)
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<float>(static_cast<int32_t>(state >> 32)) * (1.0f / 2147483648.0f);
}

// An image whose channels are a slice of wider pixels; everything around the slice is a canary.
struct Image {
  std::vector<float> memory;
  ImageView view;

  Image(int64_t n, int64_t h, int64_t w, int64_t c, int64_t before, int64_t behind, uint64_t seed = 0)
      : memory(static_cast<size_t>(n * h * w * (c + before + behind)), kCanary),
        view{memory.data() + before, DType::kF32, n, h, w, c, c + before + behind} {
    uint64_t state = seed;
    for (int64_t p = 0; p < n * h * w; ++p) {
      for (int64_t i = 0; i < c; ++i) at(p, i) = seed ? value(state) : 0.0f;
    }
  }
  Image(const Image&) = delete;

  float& at(int64_t pixel, int64_t i) { return data<float>(view)[pixel * view.pitch + i]; }
  float& at(int64_t n, int64_t y, int64_t x, int64_t i) { return at((n * view.h + y) * view.w + x, i); }
  bool inside(int64_t y, int64_t x) const { return y >= 0 && y < view.h && x >= 0 && x < view.w; }
  bool canaries_live() const {
    const int64_t before = data<const float>(view) - memory.data();
    for (size_t k = 0; k < memory.size(); ++k) {
      const int64_t i = static_cast<int64_t>(k) % view.pitch - before;
      if ((i < 0 || i >= view.c) && memory[k] != kCanary) return false;
    }
    return true;
  }
};

std::vector<float> random_values(int64_t count, uint64_t seed) {
  std::vector<float> v(static_cast<size_t>(count));
  for (float& f : v) f = value(seed);
  return v;
}

struct Case {
  int64_t n, h, w, in, out, k, stride, pad;
  int64_t before = 0, behind = 0;  // canaries around the channels of every image
};

// Shapes of the model made small, tails of every tile height, one channel, many classes, odd sizes and unusual kernels.
std::vector<Case> cases() {
  std::vector<Case> all = {
      {2, 17, 19, 3, 16, 3, 2, 1},
      {1, 20, 20, 16, 16, 3, 1, 1, 3, 5},
      {2, 10, 21, 32, 64, 3, 2, 1},
      {1, 9, 11, 64, 80, 3, 1, 1, 16, 0},
      {1, 7, 7, 80, 80, 1, 1, 0, 0, 7},
      {2, 5, 6, 48, 32, 1, 1, 0, 16, 16},
      {1, 6, 6, 20, 1, 1, 1, 0},
      {1, 4, 5, 24, 1000, 1, 1, 0, 1, 1},
      {1, 13, 8, 5, 33, 3, 1, 1, 2, 1},
      {1, 12, 12, 7, 9, 5, 1, 2},
      {1, 11, 13, 6, 40, 5, 3, 2},
      {1, 8, 8, 4, 17, 1, 2, 0, 1, 2},
      {2, 6, 7, 3, 4, 2, 2, 0},
      {1, 9, 9, 2, 3, 4, 3, 1},
      {1, 5, 5, 3, 2, 3, 1, 0},
      {1, 6, 5, 3, 18, 3, 1, 2},
      {1, 3, 3, 4, 8, 7, 1, 3},
      {1, 1, 1, 8, 8, 3, 1, 1},
      {1, 1, 70, 8, 112, 3, 1, 1},
      {1, 2, 2, 600, 24, 1, 1, 0},
      {1, 5, 6, 2, 3, 1, 3, 0},
      {1, 40, 40, 8, 130, 3, 1, 1},
      {3, 30, 31, 16, 48, 3, 1, 1},
      {1, 4, 4, 5, 6, 1, 1, 1},
      // Weights shared out; rows a page apart, and not.
      {1, 6, 9, 1024, 520, 1, 1, 0},
      {1, 5, 5, 740, 720, 1, 1, 0, 3, 1},
      // Wide enough to be read in place.
      {1, 9, 40, 16, 24, 3, 1, 1, 3, 5},
      {2, 12, 60, 5, 20, 3, 2, 1, 1, 2},
      {1, 15, 51, 3, 16, 3, 2, 1},
      {1, 10, 91, 6, 7, 5, 3, 2, 2, 0},
      {1, 6, 33, 4, 5, 3, 1, 0, 1, 0},
      {1, 5, 40, 3, 17, 2, 2, 1, 0, 1},
      // Pixels far and crowded in L1; taps and channels of gradients of filters shared out, a single tap among them.
      {1, 3, 9, 576, 60, 1, 1, 0},
      {1, 7, 12, 512, 330, 3, 2, 1, 0, 16},
      {2, 3, 5, 352, 420, 3, 1, 1, 4, 0},
      {1, 5, 12, 400, 384, 1, 2, 0},
      // Tiles of 4x4 enough for Winograd's form: every pad, sizes that are no multiple of 4, channels that fill no vector.
      {2, 21, 23, 17, 33, 3, 1, 1, 3, 5},
      {3, 13, 18, 20, 100, 3, 1, 0, 0, 4},
      {2, 19, 17, 33, 16, 3, 1, 2, 1, 0},
      {9, 5, 7, 96, 64, 3, 1, 1, 0, 16},
      {1, 44, 40, 32, 32, 3, 1, 1},
      // The same with stride 2: tiles of 4x4 outputs, or of 8x8 inputs for the data gradient.
      {1, 40, 40, 64, 512, 3, 2, 1},
      {1, 39, 40, 67, 490, 3, 2, 1, 3, 5},
      {4, 37, 45, 68, 121, 3, 2, 1, 0, 4},
      {20, 23, 15, 36, 32, 3, 2, 1, 1, 0},
  };
  for (int64_t w = 1; w <= 29; ++w) all.push_back({1, 2, w, 3, 1 + 8 * (w % 12), 3, 1, 1, w % 3, w % 2});
  return all;
}

std::string name(const Case& c) {
  return std::to_string(c.n) + "x" + std::to_string(c.h) + "x" + std::to_string(c.w) + " " + std::to_string(c.in) + ">" +
         std::to_string(c.out) + " k" + std::to_string(c.k) + " s" + std::to_string(c.stride) + " p" + std::to_string(c.pad);
}

// Calls f(n, oy, ox, iy, ix, tap) for every product pair of pixels.
template <class F>
void for_taps(const Case& c, int64_t oh, int64_t ow, const F& f) {
  for (int64_t n = 0; n < c.n; ++n) {
    for (int64_t oy = 0; oy < oh; ++oy) {
      for (int64_t ox = 0; ox < ow; ++ox) {
        for (int64_t tap = 0; tap < c.k * c.k; ++tap) {
          const int64_t iy = oy * c.stride + tap / c.k - c.pad;
          const int64_t ix = ox * c.stride + tap % c.k - c.pad;
          if (iy >= 0 && iy < c.h && ix >= 0 && ix < c.w) f((n * oh + oy) * ow + ox, (n * c.h + iy) * c.w + ix, tap);
        }
      }
    }
  }
}

// |a - b| within rounding of a sum of `terms` products of size 1, `times` over; one product more or less is not.
bool close(double a, double b, int64_t terms, double times = 1) {
  return std::abs(a - b) <= times * 6e-8 * (16 + static_cast<double>(terms));
}

int64_t count_wrong(Image& got, const std::vector<double>& want, int64_t terms, double times = 1) {
  int64_t wrong = 0;
  for (int64_t p = 0; p < static_cast<int64_t>(want.size()) / got.view.c; ++p) {
    for (int64_t i = 0; i < got.view.c; ++i) wrong += !close(got.at(p, i), want[static_cast<size_t>(p * got.view.c + i)], terms, times);
  }
  return wrong;
}

// Restores the target and the threads when a test case ends.
struct Settings {
  std::string target{cpu::current_target()};
  int threads = compute_threads();
  std::string conv{name_of(conv_choice())};
  ~Settings() {
    cpu::force_target(target);
    set_conv_choice(conv);
    set_compute_threads(threads);
  }
};

void check_case(const Case& c) {
  const int64_t oh = (c.h + 2 * c.pad - c.k) / c.stride + 1;
  const int64_t ow = (c.w + 2 * c.pad - c.k) / c.stride + 1;
  const int64_t taps = c.k * c.k;
  const ConvParams p{c.stride, c.pad};
  Image x(c.n, c.h, c.w, c.in, c.before, c.behind, 1);
  Image dy(c.n, oh, ow, c.out, c.before, c.behind, 2);
  Image residual(c.n, oh, ow, c.out, c.behind, c.before, 3);
  std::vector<float> w = random_values(c.out * taps * c.in, 4);
  const std::vector<float> bias = random_values(c.out, 5);
  const FilterView filter{w.data(), DType::kF32, c.out, c.k, c.k, c.in};
  // The largest errors of Winograd's form in these cases are two to three times the bound of the plain sum, with stride 2 about it.
  const double times = cpu::takes_winograd(ConvPass::kForward, filter, p) ? (c.stride == 1 ? 4 : 2) : 1;

  std::vector<double> y_want(static_cast<size_t>(c.n * oh * ow * c.out), 0.0);
  std::vector<double> dx_want(static_cast<size_t>(c.n * c.h * c.w * c.in), 0.0);
  std::vector<double> dw_want(w.size(), 0.0);
  for_taps(c, oh, ow, [&](int64_t out, int64_t in, int64_t tap) {
    const float* from = &x.at(in, 0);
    double* dx = dx_want.data() + in * c.in;
    for (int64_t o = 0; o < c.out; ++o) {
      const int64_t at = (o * taps + tap) * c.in;
      const double g = dy.at(out, o);
      double sum = 0.0;
      for (int64_t i = 0; i < c.in; ++i) {
        const double weight = w[static_cast<size_t>(at + i)];
        sum += from[i] * weight;
        dx[i] += g * weight;
        dw_want[static_cast<size_t>(at + i)] += g * from[i];
      }
      y_want[static_cast<size_t>(out * c.out + o)] += sum;
    }
  });

  {  // forward
    Image y(c.n, oh, ow, c.out, c.before, c.behind);
    cpu::conv2d(x.view, filter, y.view, p, {});
    CHECK(count_wrong(y, y_want, taps * c.in, times) == 0);
    CHECK(y.canaries_live());

    std::vector<double> want = y_want;
    for (size_t k = 0; k < want.size(); ++k) {
      const double v = want[k] + bias[k % static_cast<size_t>(c.out)];
      const auto pixel = static_cast<int64_t>(k) / c.out;
      want[k] = v / (1.0 + std::exp(-v)) + residual.at(pixel, static_cast<int64_t>(k) % c.out);
    }
    cpu::conv2d(x.view, filter, y.view, p, {bias.data(), Activation::kSilu, residual.view});
    CHECK(count_wrong(y, want, taps * c.in, times) == 0);
    CHECK(y.canaries_live());
  }
  {  // backward data
    Image dx(c.n, c.h, c.w, c.in, c.before, c.behind, 9);
    cpu::conv2d_backward_data(dy.view, filter, dx.view, p, false);
    CHECK(count_wrong(dx, dx_want, taps * c.out, times) == 0);
    cpu::conv2d_backward_data(dy.view, filter, dx.view, p, true);
    for (double& v : dx_want) v *= 2;
    CHECK(count_wrong(dx, dx_want, 2 * taps * c.out, times) == 0);
    CHECK(dx.canaries_live());
  }
  {  // backward weight
    std::vector<float> dw(w.size() + 32, kCanary);
    const FilterView view{dw.data() + 16, DType::kF32, c.out, c.k, c.k, c.in};
    const auto wrong = [&](double factor) {
      int64_t bad = 0;
      for (size_t k = 0; k < w.size(); ++k) bad += !close(dw[k + 16], factor * dw_want[k], 2 * c.n * oh * ow, times);
      return bad;
    };
    cpu::conv2d_backward_weight(x.view, dy.view, view, p, false);
    CHECK(wrong(1) == 0);
    cpu::conv2d_backward_weight(x.view, dy.view, view, p, true);
    CHECK(wrong(2) == 0);
    CHECK(std::count(dw.begin(), dw.begin() + 16, kCanary) == 16);
    CHECK(std::count(dw.end() - 16, dw.end(), kCanary) == 16);
  }
}

TEST_CASE("convolution equals the direct sum on every target") {
  const Settings restore;
  for (const auto target : cpu::runnable_targets()) {
    cpu::force_target(target);
    for (const char* kernels : {"own", "direct"}) {
      set_conv_choice(kernels);
      for (const Case& c : cases()) {
        if (kernels == std::string("direct") && c.k != 3) continue;
        CAPTURE(target);
        CAPTURE(kernels);
        CAPTURE(name(c));
        check_case(c);
      }
    }
  }
}

TEST_CASE("transposed 2x2 convolution equals the direct sum on every target") {
  const Settings restore;
  for (const auto target : cpu::runnable_targets()) {
    cpu::force_target(target);
    for (const Case& c : {Case{2, 5, 7, 16, 16, 2, 2, 0}, Case{1, 3, 20, 33, 18, 2, 2, 0, 3, 2}, Case{1, 1, 1, 1, 1, 2, 2, 0}}) {
      CAPTURE(target);
      CAPTURE(name(c));
      Image x(c.n, c.h, c.w, c.in, c.before, c.behind, 1);
      Image dy(c.n, 2 * c.h, 2 * c.w, c.out, c.before, c.behind, 2);
      std::vector<float> w = random_values(c.out * 4 * c.in, 3);
      const std::vector<float> bias = random_values(c.out, 4);
      const FilterView filter{w.data(), DType::kF32, c.out, 2, 2, c.in};
      std::vector<double> y_want(static_cast<size_t>(c.n * c.h * c.w * 4 * c.out));
      std::vector<double> dx_want(static_cast<size_t>(c.n * c.h * c.w * c.in));
      std::vector<double> dw_want(w.size());
      for (int64_t p = 0; p < c.n * c.h * c.w; ++p) {
        for (int64_t tap = 0; tap < 4; ++tap) {
          const int64_t out = (p / c.w * 2 + tap / 2) * 2 * c.w + p % c.w * 2 + tap % 2;
          for (int64_t o = 0; o < c.out; ++o) {
            double sum = bias[static_cast<size_t>(o)];
            for (int64_t i = 0; i < c.in; ++i) {
              const auto at = static_cast<size_t>((o * 4 + tap) * c.in + i);
              sum += static_cast<double>(x.at(p, i)) * w[at];
              dx_want[static_cast<size_t>(p * c.in + i)] += static_cast<double>(dy.at(out, o)) * w[at];
              dw_want[at] += static_cast<double>(dy.at(out, o)) * x.at(p, i);
            }
            y_want[static_cast<size_t>(out * c.out + o)] = sum;
          }
        }
      }
      Image y(c.n, 2 * c.h, 2 * c.w, c.out, c.before, c.behind);
      cpu::conv_transpose2x2(x.view, filter, y.view, bias.data());
      CHECK(count_wrong(y, y_want, c.in) == 0);
      CHECK(y.canaries_live());
      Image dx(c.n, c.h, c.w, c.in, c.before, c.behind, 5);
      cpu::conv_transpose2x2_backward_data(dy.view, filter, dx.view, false);
      CHECK(count_wrong(dx, dx_want, 4 * c.out) == 0);
      cpu::conv_transpose2x2_backward_data(dy.view, filter, dx.view, true);
      for (double& v : dx_want) v *= 2;
      CHECK(count_wrong(dx, dx_want, 8 * c.out) == 0);
      CHECK(dx.canaries_live());
      std::vector<float> dw(w.size());
      const FilterView view{dw.data(), DType::kF32, c.out, 2, 2, c.in};
      for (const double factor : {1.0, 2.0}) {
        cpu::conv_transpose2x2_backward_weight(x.view, dy.view, view, factor > 1);
        int64_t wrong = 0;
        for (size_t k = 0; k < dw.size(); ++k) wrong += !close(dw[k], factor * dw_want[k], c.n * c.h * c.w);
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("gradient of the bias is the sum over pixels") {
  for (const int64_t rows : {0, 1, 700, 5000}) {
    Image dy(1, 1, rows, 37, 2, 1, 1);
    std::vector<float> db(37, 0.5f);
    for (const double factor : {1.0, 2.0}) {
      cpu::bias_backward(dy.view.rows(), db.data(), factor > 1);
      int64_t wrong = 0;
      for (int64_t i = 0; i < 37; ++i) {
        double sum = 0;
        for (int64_t p = 0; p < rows; ++p) sum += dy.at(p, i);
        wrong += !close(db[static_cast<size_t>(i)], factor * sum, rows);
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("SiLU of the epilogue: relative error 1e-6, also far from zero (there to 1e-38 |x|), and NaN stays NaN") {
  const Settings restore;
  std::vector<float> x;
  for (float v = -200.0f; v <= 200.0f; v += 0.37f) x.push_back(v);
  x.insert(x.end(), {0.0f, -0.0f, 1e-30f, 3e38f, -3e38f, NAN});
  const auto count = static_cast<int64_t>(x.size());
  float one = 1.0f;
  for (const auto target : cpu::runnable_targets()) {
    cpu::force_target(target);
    std::vector<float> y(x.size());
    cpu::conv2d({x.data(), DType::kF32, 1, 1, count, 1, 1}, {&one, DType::kF32, 1, 1, 1, 1},
                {y.data(), DType::kF32, 1, 1, count, 1, 1}, {1, 0}, {nullptr, Activation::kSilu, {}});
    for (size_t k = 0; k + 1 < x.size(); ++k) {
      const double want = x[k] / (1.0 + std::exp(-static_cast<double>(x[k])));
      CAPTURE(x[k]);
      CHECK(std::abs(y[k] - want) <= 1e-6 * std::abs(want) + 1e-38 * std::abs(x[k]));
    }
    CHECK(std::isnan(y.back()));
  }
}

TEST_CASE("results do not depend on the number of threads") {
  const Settings restore;
  for (const Case& c : {Case{2, 40, 40, 16, 80, 3, 1, 1}, Case{4, 45, 47, 32, 64, 3, 2, 1}, Case{1, 30, 30, 64, 96, 1, 1, 0},
                        Case{1, 7, 12, 512, 330, 3, 2, 1}}) {
    CAPTURE(name(c));
    const int64_t oh = (c.h + 2 * c.pad - c.k) / c.stride + 1;
    const int64_t ow = (c.w + 2 * c.pad - c.k) / c.stride + 1;
    Image x(c.n, c.h, c.w, c.in, 0, 0, 1);
    Image dy(c.n, oh, ow, c.out, 0, 0, 2);
    std::vector<float> w = random_values(c.out * c.k * c.k * c.in, 3);
    const FilterView filter{w.data(), DType::kF32, c.out, c.k, c.k, c.in};
    std::vector<float> first;
    for (const int threads : {1, 2, 3}) {
      set_compute_threads(threads);
      Image y(c.n, oh, ow, c.out, 0, 0);
      Image dx(c.n, c.h, c.w, c.in, 0, 0);
      std::vector<float> dw(w.size());
      cpu::conv2d(x.view, filter, y.view, {c.stride, c.pad}, {});
      cpu::conv2d_backward_data(dy.view, filter, dx.view, {c.stride, c.pad}, false);
      cpu::conv2d_backward_weight(x.view, dy.view, {dw.data(), DType::kF32, c.out, c.k, c.k, c.in}, {c.stride, c.pad}, false);
      std::vector<float> all = y.memory;
      all.insert(all.end(), dx.memory.begin(), dx.memory.end());
      all.insert(all.end(), dw.begin(), dw.end());
      if (threads == 1) first = all;
      CHECK(all == first);
    }
  }
}

// The cases above would not show it: where the form is not taken, the plain sum passes.
TEST_CASE("3x3 convolutions with stride 2 take Winograd's form in each direction, packed filters do not") {
  const Settings restore;
  set_conv_choice("own");
  std::vector<float> w(512 * 9 * 64);
  FilterView filter{w.data(), DType::kF32, 512, 3, 3, 64};
  const Image y(4, 20, 20, 512, 0, 0);
  for (const ConvPass pass : {ConvPass::kForward, ConvPass::kBackwardData, ConvPass::kBackwardWeight}) {
    CHECK(cpu::repays_winograd(pass, filter, y.view, {2, 1}));
    CHECK(!cpu::repays_winograd(pass, filter, y.view, {2, 0}));
  }
  filter.packed = w.data();
  CHECK(!cpu::repays_winograd(ConvPass::kForward, filter, y.view, {2, 1}));
  CHECK(cpu::repays_winograd(ConvPass::kForward, filter, y.view, {1, 1}));
}

TEST_CASE("large results, which are written past the caches, have the bits of their parts, which are not") {
  const Settings restore;
  set_conv_choice("direct");
  constexpr int64_t kSide = 96, kNarrow = 16, kWide = 256;
  const Image narrow(2, kSide, kSide, kNarrow, 0, 0, 1), small(2, kSide / 2, kSide / 2, kNarrow, 0, 0, 2);
  const std::vector<float> w = random_values(kWide * 9 * kNarrow, 3);
  const auto image_of = [](ImageView v, int64_t n) {
    v.p = data<float>(v) + n * v.h * v.w * v.pitch;
    v.n = 1;
    return v;
  };
  for (const auto target : cpu::runnable_targets()) {
    cpu::force_target(target);
    const int64_t lanes = cpu::tile_kernels<float>().lanes;
    const auto check = [&](const char* what, const auto& run) {
      CAPTURE(what);
      constexpr int64_t kSize = 2 * kSide * kSide * kWide;
      const cpu::HostScratch<float> whole(kSize), parts(kSize);
      const ImageView y{whole.get(), DType::kF32, 2, kSide, kSide, kWide, kWide};
      ImageView z = y;
      z.p = parts.get();
      CHECK(cpu::writes_past_caches<float>(y, lanes) == (lanes == 16));
      CHECK(!cpu::writes_past_caches<float>(image_of(z, 0), lanes));
      std::fill_n(whole.get(), kSize, kCanary);
      run(y, [](const ImageView& v) { return v; });
      for (const int64_t n : {0, 1}) run(image_of(z, n), [&](const ImageView& v) { return image_of(v, n); });
      CHECK(std::equal(whole.get(), whole.get() + kSize, parts.get()));
    };
    const FilterView expands{const_cast<float*>(w.data()), DType::kF32, kWide, 1, 1, kNarrow};
    check("1x1", [&](const ImageView& y, const auto& of) { cpu::conv2d(of(narrow.view), expands, y, {1, 0}, {}); });
    const FilterView reduces{const_cast<float*>(w.data()), DType::kF32, kNarrow, 1, 1, kWide};
    check("1x1 by data", [&](const ImageView& y, const auto& of) {
      cpu::conv2d_backward_data(of(narrow.view), reduces, y, {1, 0}, false);
    });
    const FilterView halves{const_cast<float*>(w.data()), DType::kF32, kNarrow, 3, 3, kWide};
    check("3x3 stride 2 by data", [&](const ImageView& y, const auto& of) {
      cpu::conv2d_backward_data(of(small.view), halves, y, {2, 1}, false);
    });
  }
}

// CPUs differ in whether rows whole pages apart are copied (Note [Crowded sets] in conv_plan.cpp).
TEST_CASE("rows that crowd L1 are multiplied the same in a copy and in place") {
  const Settings restore;
  constexpr int64_t kRows = 130, kDepth = 1024, kColumns = 40;
  const std::vector<float> a = random_values(kRows * kDepth, 1), w = random_values(kColumns * kDepth, 2);
  for (const auto target : cpu::runnable_targets()) {
    cpu::force_target(target);
    cpu::TileKernels<float> k = cpu::tile_kernels<float>();
    const std::vector<cpu::ChannelGroup> groups = cpu::channel_groups(kColumns, k);
    const cpu::HostScratch<float> packed(kDepth * cpu::packed_width(groups, k));
    float* to = packed.get();
    for (const cpu::ChannelGroup& g : groups) {
      k.pack(to, g.vectors * k.lanes, w.data() + g.start * kDepth, kDepth, 1, g.channels, kDepth);
      to += g.vectors * k.lanes * kDepth;
    }
    std::vector<float> y[2];
    for (const int64_t ways : {8, 12}) {
      std::vector<float>& out = y[ways == 12];
      out.assign(kRows * kColumns, kCanary);
      k.l1_ways = ways;
      cpu::run(cpu::RowsProduct<float>{a.data(), kDepth, kRows, kDepth, packed.get(), out.data(), kColumns, {}}, groups, k);
    }
    CHECK(y[0] == y[1]);
    double largest = 0;
    for (int64_t p = 0; p < kRows; ++p) {
      for (int64_t o = 0; o < kColumns; ++o) {
        double want = 0;
        for (int64_t i = 0; i < kDepth; ++i) want += double(a[size_t(p * kDepth + i)]) * double(w[size_t(o * kDepth + i)]);
        largest = std::max(largest, std::abs(double(y[0][size_t(p * kColumns + o)]) - want));
      }
    }
    CHECK(largest < 1e-4);
  }
}

}  // namespace
}  // namespace tessera
