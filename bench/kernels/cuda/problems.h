// The problems of the ladders with their answers: f32 numbers that are exact in bf16, summed in double by the formula.
#pragma once

#include <cmath>
#include <vector>

#include "bench/kernels/cuda/rungs.h"
#include "tensor/ops/random.h"
#include "tensor/tensor.h"

namespace tessera::study {

// Values of a normal distribution, rounded to bf16, on the host.
inline Tensor random_bf16(const Shape& shape, uint64_t seed, double deviation = 1) {
  const Tensor t = Tensor::empty(shape);
  ops::normal(t, {seed, RngPurpose::kUser}, 0, deviation);
  return t.to(DType::kBF16).to(DType::kF32);
}

struct ConvProblem {
  ConvProblem(int64_t n, int64_t size, int64_t in, int64_t out)
      : host_x(random_bf16({n, size, size, in}, 1)),
        host_w(random_bf16({out, 3, 3, in}, 2, 1 / std::sqrt(9.0 * double(in)))),
        x(host_x.to(DType::kBF16).to(Device::cuda())),
        w(host_w.to(DType::kBF16).to(Device::cuda())),
        y(Tensor::zeros({n, size, size, out}, DType::kBF16, Device::cuda())) {}

  double flops() const { return 2.0 * 9 * double(host_x.numel()) * double(host_w.size(0)); }
  void run(const Rung<ConvRung>& rung) const {
    rung.run({x.raw(), DType::kBF16, x.size(0), x.size(1), x.size(2), x.size(3), x.size(3)},
             {w.raw(), DType::kBF16, w.size(0), 3, 3, w.size(3)},
             {y.raw(), DType::kBF16, y.size(0), y.size(1), y.size(2), y.size(3), y.size(3)});
  }
  // The largest difference of some results from sums in double, in units of the result's last place at 1; `samples` pixels.
  double error(int64_t samples) const {
    const std::vector<float> got = y.to(Device::cpu()).to(DType::kF32).to_vector<float>();
    const auto *const px = host_x.data<float>(), *const pw = host_w.data<float>();
    const int64_t size = host_x.size(1), in = host_x.size(3), out = host_w.size(0), pixels = host_x.size(0) * size * size;
    double most = 0;
    for (int64_t s = 0; s < samples; ++s) {
      const int64_t pixel = s * (pixels - 1) / std::max<int64_t>(samples - 1, 1);
      const int64_t n = pixel / (size * size), row = pixel / size % size, col = pixel % size;
      for (int64_t o = 0; o < out; ++o) {
        double sum = 0;
        for (int64_t tap = 0; tap < 9; ++tap) {
          const int64_t r = row + tap / 3 - 1, c = col + tap % 3 - 1;
          if (r < 0 || c < 0 || r >= size || c >= size) continue;
          const float *const a = px + ((n * size + r) * size + c) * in, *const b = pw + (o * 9 + tap) * in;
          for (int64_t i = 0; i < in; ++i) sum += double(a[i]) * double(b[i]);
        }
        most = std::max(most, std::abs(double(got[size_t(pixel * out + o)]) - sum) / std::max(std::abs(sum), 1.0));
      }
    }
    return most;
  }

  Tensor host_x, host_w, x, w, y;
};

struct NormProblem {
  NormProblem(int64_t rows, int64_t cols)
      : host_x(random_bf16({rows, cols}, 3)),
        host_dy(random_bf16({rows, cols}, 4)),
        x(host_x.to(DType::kBF16).to(Device::cuda())),
        dy(host_dy.to(DType::kBF16).to(Device::cuda())),
        dx(Tensor::zeros({rows, cols}, DType::kBF16, Device::cuda())),
        sums(Tensor::zeros({2, cols}, DType::kF32, Device::cuda())) {
    std::vector<float>
        numbers;  // mean, rstd, gamma, beta: any will do, the formulas hold for the true mean and variance only in dx's sums
    for (int64_t k = 0; k < 4; ++k) {
      for (int64_t c = 0; c < cols; ++c) numbers.push_back(k == 0 ? 0.01f * float(c % 7) : k == 1 ? 0.9f : k == 2 ? 1.1f : -0.2f);
    }
    host_channels = Tensor::from_vector(numbers, {4, cols});
    channels = host_channels.to(Device::cuda());
  }

  double bytes() const { return 5.0 * 2 * double(host_x.numel()); }  // x and dy twice, dx once
  void run(const Rung<NormRung>& rung) const {
    const int64_t rows = x.size(0), cols = x.size(1);
    const auto channel = [&](int64_t k) { return static_cast<const float*>(channels.raw()) + k * cols; };
    const auto view = [&](const Tensor& t) { return RowsView{t.raw(), DType::kBF16, rows, cols, cols}; };
    auto* const s = static_cast<float*>(sums.raw());
    rung.run({view(x), view(dy), {channel(0), channel(1), channel(2), channel(3)}, view(dx), s, s + cols});
  }
  // The largest difference from the formulas in double: of the sums by the root of the rows, of `samples` rows of dx by 1.
  double error(int64_t samples) const {
    const int64_t rows = host_x.size(0), cols = host_x.size(1);
    const std::vector<float> got = dx.to(Device::cpu()).to(DType::kF32).to_vector<float>(), got_sums = sums.to_vector<float>();
    const auto *const px = host_x.data<float>(), *const pdy = host_dy.data<float>(), *const pc = host_channels.data<float>();
    double most = 0;
    for (int64_t c = 0; c < cols; ++c) {
      const double mean = pc[c], rstd = pc[cols + c], gamma = pc[2 * cols + c], beta = pc[3 * cols + c];
      const auto terms = [&](int64_t r) {
        const double xhat = (px[r * cols + c] - mean) * rstd, z = xhat * gamma + beta, sigmoid = 1 / (1 + std::exp(-z));
        return std::pair{xhat, pdy[r * cols + c] * sigmoid * (1 + z * (1 - sigmoid))};
      };
      double dgamma = 0, dbeta = 0;
      for (int64_t r = 0; r < rows; ++r) {
        const auto [xhat, dz] = terms(r);
        dgamma += dz * xhat, dbeta += dz;
      }
      const double scale = std::sqrt(double(rows));
      most = std::max({most, std::abs(got_sums[size_t(c)] - dgamma) / scale, std::abs(got_sums[size_t(cols + c)] - dbeta) / scale});
      for (int64_t s = 0; s < samples; ++s) {
        const int64_t r = s * (rows - 1) / std::max<int64_t>(samples - 1, 1);
        const auto [xhat, dz] = terms(r);
        const double want = gamma * rstd * (dz - dbeta / double(rows) - xhat * dgamma / double(rows));
        most = std::max(most, std::abs(got[size_t(r * cols + c)] - want) / std::max(std::abs(want), 1.0));
      }
    }
    return most;
  }

  Tensor host_x, host_dy, host_channels, x, dy, dx, sums, channels;
};

// bf16 keeps 8 bits: half a unit of the last place, and what f32 sums add to it.
inline constexpr double kLadderTolerance = 1.0 / 256 * 1.05;

}  // namespace tessera::study
