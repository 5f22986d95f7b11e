#include "tools/verbs/roof.h"

#include <algorithm>
#include <chrono>

#include "tensor/backend.h"
#include "tensor/cpu/peak.h"
#include "tensor/ops/copy.h"

namespace tessera {

Roof measured_roof(Device device, DType type) {
  if (device == Device::cpu()) return {measure_multiply_add_gflops(type), measure_copy_gbytes()};
  constexpr int64_t kElements = int64_t{1} << 26;
  const Tensor from = Tensor::zeros({kElements}, DType::kF32, device), to = Tensor::zeros({kElements}, DType::kF32, device);
  Backend& backend = backend_for(device);
  double best = 0;
  for (int run = 0; run < 6; ++run) {  // the first loads the kernel
    backend.synchronize();
    const auto start = std::chrono::steady_clock::now();
    ops::copy(from, to);
    backend.synchronize();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, 2.0 * 4.0 * double(kElements) / seconds / 1e9);
  }
  return {0, best};
}

}  // namespace tessera
