// Not a test but a measurement, skipped unless asked for: test_cpu --no-skip -tc="speed*". Prints the table of docs/performance.md.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>

#include "tests/cpu/support.h"

using namespace tessera;
using namespace tessera::testing;

namespace {

// Seconds of the fastest of `runs` runs: the machine is shared, its undisturbed moments are what can be compared.
double seconds(const std::function<void()>& f, int runs = 25) {
  double best = 1e9;
  for (int i = 0; i <= runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i > 0) best = std::min(best, s);
  }
  return best;
}

// bytes: what has to be read and written at least.
void line(const char* what, double bytes, double s) {
  std::printf("  %-40s %9.3f ms %7.1f GB/s\n", what, s * 1e3, bytes / s / 1e9);
}

Tensor noise(const Shape& shape, double low = -3, double high = 3, DType type = DType::kF32) {
  Tensor t = Tensor::empty(shape, type);
  backend_for(Device::cpu()).uniform(t.view({-1, 1}).rows(), {7, RngPurpose::kUser, uint32_t(t.numel())}, low, high);
  return t;
}

RowsView rows(const Tensor& t) { return t.rows(); }

}  // namespace

TEST_CASE("speed: norm and pointwise passes at batch 16, n, 640" * doctest::skip()) {
  Backend& b = backend_for(Device::cpu());
  std::printf("%s, %d threads\n", std::string(b.name()).c_str(), compute_threads());
  for (const auto& [side, c] :
       std::vector<std::pair<int64_t, int64_t>>{{320, 16}, {160, 32}, {160, 16}, {80, 64}, {40, 128}, {20, 256}}) {
    const Shape shape{16, side, side, c};
    const Tensor x = noise(shape), dy = noise(shape), y = Tensor::zeros(shape), k = noise({c}, 0.5, 1.5), v = Tensor::zeros({c});
    const BatchNormView bn{k.raw(), k.raw(), k.raw(), k.raw()};
    const double bytes = double(x.numel()) * 4;
    std::printf("16 x %ld x %ld x %ld, %.1f MB\n", long(side), long(side), long(c), bytes / 1e6);
    line("copy (memcpy)", 2 * bytes, seconds([&] { b.copy(x.strided(), y.strided()); }));
    line("copy (scale by 1, streaming when large)", 2 * bytes, seconds([&] { b.scale(rows(x), 1.0, rows(y)); }));
    line("batch norm statistics", bytes, seconds([&] { b.batch_norm_stats(x.image(), 1e-3, {}, v.raw(), k.raw()); }));
    k.fill(0.9);
    line("normalise + SiLU", 2 * bytes, seconds([&] { b.batch_norm_apply(rows(x), bn, Activation::kSilu, {}, rows(y)); }));
    line("normalise + SiLU + residual", 3 * bytes,
         seconds([&] { b.batch_norm_apply(rows(x), bn, Activation::kSilu, rows(dy), rows(y)); }));
    line("backward of both (two passes)", 5 * bytes,
         seconds([&] { b.batch_norm_backward(rows(x), rows(dy), bn, Activation::kSilu, rows(y), v.raw(), v.raw(), false); }));
    line("SiLU", 2 * bytes, seconds([&] { b.unary(UnaryOp::kSilu, rows(x), rows(y)); }));
    line("SiLU backward", 3 * bytes, seconds([&] { b.unary_backward(UnaryOp::kSilu, rows(x), rows(dy), rows(y), false); }));
  }
}

// Nanoseconds of CPU time of one thread per element, f32 and bf16: what can be compared on a machine with other work on it.
TEST_CASE("speed: bf16 beside f32" * doctest::skip()) {
  const Restore restore;
  set_compute_threads(1);
  Backend& b = backend_for(Device::cpu());
  const auto cpu_seconds = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
  };
  for (const auto& [n, runs] : std::vector<std::pair<int64_t, int>>{{1 << 16, 400}, {16 * 320 * 320 * 16, 15}}) {
    std::vector<std::pair<const char*, std::vector<double>>> table = {{"copy (scale by 1)", {}},
                                                                      {"statistics", {}},
                                                                      {"normalise", {}},
                                                                      {"normalise + SiLU", {}},
                                                                      {"+ residual", {}},
                                                                      {"norm backward", {}},
                                                                      {"SiLU", {}},
                                                                      {"SiLU backward", {}},
                                                                      {"add", {}},
                                                                      {"cast to the other", {}}};
    for (DType type : {DType::kF32, DType::kBF16}) {
      const Shape shape{1, 1, n / 16, 16};
      const Tensor x = noise(shape, -3, 3, type), dy = noise(shape, -3, 3, type), y = Tensor::zeros(shape, type),
                   other = Tensor::zeros(shape, type == DType::kF32 ? DType::kBF16 : DType::kF32), k = Tensor::full({16}, 0.9),
                   v = Tensor::zeros({16}), w = Tensor::zeros({16});
      const BatchNormView bn{k.raw(), k.raw(), k.raw(), k.raw()};
      const std::vector<std::function<void()>> passes = {
          [&] { b.scale(rows(x), 1, rows(y)); },
          [&] { b.batch_norm_stats(x.image(), 1e-3, {}, v.raw(), w.raw()); },
          [&] { b.batch_norm_apply(rows(x), bn, Activation::kNone, {}, rows(y)); },
          [&] { b.batch_norm_apply(rows(x), bn, Activation::kSilu, {}, rows(y)); },
          [&] { b.batch_norm_apply(rows(x), bn, Activation::kSilu, rows(dy), rows(y)); },
          [&] { b.batch_norm_backward(rows(x), rows(dy), bn, Activation::kSilu, rows(y), v.raw(), w.raw(), false); },
          [&] { b.unary(UnaryOp::kSilu, rows(x), rows(y)); },
          [&] { b.unary_backward(UnaryOp::kSilu, rows(x), rows(dy), rows(y), false); },
          [&] { b.binary(BinaryOp::kAdd, x.strided(), dy.strided(), y.strided()); },
          [&] { b.copy(x.strided(), other.strided()); }};
      for (size_t i = 0; i < passes.size(); ++i) {
        double best = 1e9;
        for (int run = 0; run < runs; ++run) {
          const double start = cpu_seconds();
          passes[i]();
          best = std::min(best, cpu_seconds() - start);
        }
        table[i].second.push_back(best / double(n) * 1e9);
      }
    }
    std::printf("%s, %ld elements: ns per element f32, bf16, ratio\n", std::string(b.name()).c_str(), long(n));
    for (const auto& [name, ns] : table) std::printf("  %-20s %7.3f %7.3f %6.2f\n", name, ns[0], ns[1], ns[1] / ns[0]);
  }
}

TEST_CASE("speed: losses, pooling, optimizer at batch 16, n, 640" * doctest::skip()) {
  Backend& b = backend_for(Device::cpu());
  const Tensor logits = noise({16 * 8400, 80}), truth = noise({16 * 8400, 80}, 0, 1), dx = Tensor::zeros({16 * 8400, 80});
  const double bytes = double(logits.numel()) * 4;
  float sum = 0;
  const float one = 1;
  line("BCE forward, 16 x 8400 x 80", 2 * bytes, seconds([&] { b.bce_with_logits(rows(logits), rows(truth), &sum); }));
  line("BCE backward", 3 * bytes, seconds([&] { b.bce_with_logits_backward(rows(logits), rows(truth), &one, rows(dx), false); }));

  const int64_t count = 1600;  // 100 positives an image, boxes of 40 x 40
  const Tensor c = noise({count, 32}), p = noise({16, 160, 160, 32}), dc = Tensor::zeros({count, 32}),
               dp = Tensor::zeros({16, 160, 160, 32});
  std::vector<int32_t> image, target, masks(16 * 160 * 160, 1);
  std::vector<float> boxes, area;
  for (int64_t i = 0; i < count; ++i) {
    const auto x = float(i * 37 % 120), y = float(i * 53 % 120);
    image.push_back(int32_t(i % 16));
    target.push_back(1);
    boxes.insert(boxes.end(), {x, y, x + 40, y + 40});
    area.push_back(1.0f / 16);
  }
  const MaskLossItems items{count, image.data(), target.data(), boxes.data(), area.data(), true};
  const double pixels = double(count) * 1600;
  line("mask loss forward, 1600 boxes of 40 x 40", pixels * 32 * 4,
       seconds([&] { b.mask_loss(rows(c), p.image(), masks.data(), items, &sum); }));
  line("mask loss backward", pixels * 32 * 4 * 3,
       seconds([&] { b.mask_loss_backward(rows(c), p.image(), masks.data(), items, &one, rows(dc), dp.image()); }));

  const Tensor bins = noise({16 * 8400 * 4, 16}), shares = Tensor::zeros({16 * 8400 * 4, 16});
  line("softmax, 16 x 8400 x 4 rows of 16", 2 * double(bins.numel()) * 4,
       seconds([&] { b.softmax(rows(bins), rows(shares), false); }));

  for (DType type : {DType::kF32, DType::kBF16}) {
    std::printf("%s\n", std::string(name_of(type)).c_str());
    const Tensor x = noise({16, 20, 20, 128}, -3, 3, type), y = Tensor::zeros({16, 20, 20, 128}, type),
                 taps = Tensor::zeros({16, 20, 20, 128}, DType::kU8), large = Tensor::zeros({16, 40, 40, 128}, type);
    const double small = double(x.numel()) * double(size_of(type)), index = double(taps.numel());
    line("max pool 5x5, 16 x 20 x 20 x 128", 2 * small, seconds([&] { b.max_pool2d(x.image(), y.image(), {}, {5, 1, 2}); }));
    line("max pool 5x5 with index", 2 * small + index, seconds([&] {
           b.max_pool2d(x.image(), y.image(), taps.image(), {5, 1, 2});
         }));
    line("max pool 5x5 backward", 2 * small + index, seconds([&] {
           b.max_pool2d_backward(y.image(), taps.image(), x.image(), {5, 1, 2}, false);
         }));
    line("upsample, 16 x 20 x 20 x 128", 5 * small, seconds([&] { b.upsample2x(x.image(), large.image()); }));
    line("upsample backward", 5 * small, seconds([&] { b.upsample2x_backward(large.image(), x.image(), false); }));
  }

  const Tensor photos = Tensor::zeros({16, 640, 640, 3}, DType::kU8), floats = Tensor::zeros({16, 640, 640, 3});
  line("u8 image to f32, 16 x 640 x 640 x 3", 5 * double(photos.numel()),
       seconds([&] { b.copy(photos.strided(), floats.strided()); }));

  const Tensor w = noise({3'409'968}), g = noise({3'409'968}), m = noise({3'409'968}, 0, 1), u = noise({3'409'968}, 0, 1);
  const double arena = double(w.numel()) * 4;
  line("SGD, 3.4 M parameters", 5 * arena, seconds([&] { b.sgd(rows(w), rows(g), rows(m), 1, {0.01, 0.9, 5e-4, true, false}); }));
  line("AdamW", 7 * arena, seconds([&] {
         b.adam(rows(w), rows(g), rows(m), rows(u), 1, {1e-3, 0.9, 0.999, 1e-8, 0.01, true, 10});
       }));
  line("EMA", 3 * arena, seconds([&] { b.lerp(rows(m), rows(w), 1e-4); }));
  line("sum of squares", arena, seconds([&] { b.sum_of_squares(rows(g)); }));
}
