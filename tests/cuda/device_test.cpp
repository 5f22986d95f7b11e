// What the CUDA backend does around its kernels, on a GPU. Failures on demand are the emulation's
// (tests/cuda_host/backend_test.cpp).
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "cuda/install.h"
#include "tensor/backend.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/pointwise.h"
#include "tests/support/error_of.h"

namespace tessera::testing {
namespace {

const Device kCuda = Device::cuda();

TEST_CASE("tensors go to the device and back") {
  std::vector<float> values(100003);
  std::iota(values.begin(), values.end(), -5.0f);
  const Tensor x = Tensor::empty({100003}, DType::kF32);
  std::copy(values.begin(), values.end(), x.data<float>());
  CHECK(x.to(kCuda).to_vector<float>() == values);
  CHECK(x.to(kCuda).narrow(0, 7, 5).to_vector<float>() == std::vector<float>{2, 3, 4, 5, 6});
  const Tensor m = Tensor::from_floats({1, 2, 3, 4, 5, 6}, {2, 3}).to(kCuda);
  CHECK(ops::scale(m, 2).to_vector<float>() == std::vector<float>{2, 4, 6, 8, 10, 12});
  CHECK(m.permute({1, 0}).to(Device::cpu()).to_vector<float>() == std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(Tensor::full({}, 7, DType::kF32, kCuda).item() == 7);
}

TEST_CASE("a device that is not there is the user's mistake") {
  const Error e = error_of([] { install_cuda_backend(1000); });
  CHECK(e.code() == ErrorCode::kUsage);
  CHECK(e.message().find("1000 asked for") != std::string::npos);
}

TEST_CASE("out of device memory says what was asked for, and work goes on") {
  const Error e = error_of([] { Tensor::empty({int64_t{1} << 44}, DType::kU8, kCuda); });  // 16 TiB
  CHECK(e.code() == ErrorCode::kMemory);
  CHECK(e.message().find("out of memory") != std::string::npos);
  CHECK(ops::scale(Tensor::full({3}, 2, DType::kF32, kCuda), 2).to_vector<float>() == std::vector<float>(3, 4.0f));
}

// Memory that is given back while kernels that use it are under way goes to later work of the same stream only.
TEST_CASE("buffers are used again in order") {
  Tensor x = Tensor::full({1 << 20}, 0, DType::kF32, kCuda);
  const Tensor one = Tensor::full({1 << 20}, 1, DType::kF32, kCuda);
  for (int i = 0; i < 200; ++i) x = ops::binary(BinaryOp::kAdd, x, one);
  const auto values = x.to_vector<float>();
  CHECK(std::count(values.begin(), values.end(), 200.0f) == (1 << 20));
}

}  // namespace
}  // namespace tessera::testing
