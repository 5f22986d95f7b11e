#include "tools/verbs/roof.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "cuda/install.h"
#include "tensor/backend.h"
#include "tensor/cpu/peak.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/random.h"

namespace tessera {

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Tensor cores draw less power, and run faster, on constants.
Tensor random_matrix(int64_t size, uint32_t stream, DType type, Device device) {
  const Tensor values = Tensor::empty({size, size}, DType::kF32, device);
  ops::uniform(values, {1, RngPurpose::kTest, stream}, -1.0, 1.0);
  return values.to(type);
}

}  // namespace

double median_of(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

double device_seconds(Device device, int64_t runs, const std::function<void()>& start) {
  Backend& backend = backend_for(device);
  const auto row = [&](int64_t calls) {
    backend.synchronize();
    const double begin = seconds();
    for (int64_t i = 0; i < calls; ++i) start();
    backend.synchronize();
    return (seconds() - begin) / double(calls);
  };
  row(1);  // fills caches, loads kernels, makes plans
  const double once = row(1);
  constexpr double kRow = 4e-3;
  constexpr int64_t kMostCalls = 200;
  const int64_t least = device == Device::cpu() ? 1 : 4;
  const int64_t calls = std::clamp<int64_t>(int64_t(kRow / once) + 1, least, kMostCalls);
  std::vector<double> times;
  for (int64_t i = 0; i < runs; ++i) times.push_back(row(calls));
  return median_of(std::move(times));
}

double measured_gflops(Device device, DType type) {
  if (device == Device::cpu()) return measure_multiply_add_gflops(type);
  const int64_t size = type == DType::kF32 ? 4096 : 8192;
  const Tensor a = random_matrix(size, 1, type, device), b = random_matrix(size, 2, type, device);
  const Tensor c = Tensor::empty({size, size}, type, device);
  const double t = device_seconds(device, 5, [&] { device_matmul(a, b, c); });
  return 2.0 * double(size) * double(size) * double(size) / t / 1e9;
}

double measured_copy_gbytes(Device device) {
  if (device == Device::cpu()) return measure_copy_gbytes();
  constexpr int64_t kElements = int64_t{1} << 26;
  const Tensor from = Tensor::zeros({kElements}, DType::kF32, device), to = Tensor::zeros({kElements}, DType::kF32, device);
  return 2.0 * 4.0 * double(kElements) / device_seconds(device, 5, [&] { ops::copy(from, to); }) / 1e9;
}

Roof measured_roof(Device device, DType type) { return {measured_gflops(device, type), measured_copy_gbytes(device)}; }

}  // namespace tessera
