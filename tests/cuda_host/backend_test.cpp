// What the CUDA backend does around its kernels, on the emulated runtime: devices, memory, failures and what they say.
#include "tensor/backend.h"

#include <doctest/doctest.h>

#include "cuda/context.h"
#include "cuda/device/philox.cuh"
#include "cuda/install.h"
#include "cuda/launch.cuh"
#include "tensor/base/rng.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/pointwise.h"
#include "tests/cuda_host/emulator.h"
#include "tests/support/error_of.h"

namespace tessera::testing {
namespace {

const Device kCuda = Device::cuda();

TEST_CASE("tensors go to the device and back") {
  const Tensor x = Tensor::from_floats({1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor there = x.to(kCuda);
  CHECK(there.device() == kCuda);
  CHECK(ops::scale(there, 2).to_vector<float>() == std::vector<float>{2, 4, 6, 8, 10, 12});
  CHECK(there.permute({1, 0}).to(Device::cpu()).to_vector<float>() == std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(there.narrow(1, 2, 1).to_vector<float>() == std::vector<float>{3, 6});
  CHECK(Tensor::full({}, 7, DType::kF32, kCuda).item() == 7);
  CHECK(x.to(DType::kBF16).to(kCuda).to(DType::kF32).to_vector<float>() == x.to_vector<float>());
}

TEST_CASE("a device that is not there is the user's mistake, in the driver's words") {
  emulated::fail_call("cudaGetDeviceCount", 1, cudaErrorNoDevice);
  const Error none = error_of([] { install_cuda_backend(0); });
  CHECK(none.code() == ErrorCode::kUsage);
  CHECK(says(none, "no CUDA-capable device is detected"));
  const Error second = error_of([] { install_cuda_backend(1); });
  CHECK(second.code() == ErrorCode::kUsage);
  CHECK(says(second, "invalid device ordinal: 1 asked for, 1 there"));
  emulated::fail_call("cudaGetDeviceCount", 1, cudaErrorInsufficientDriver);
  CHECK(describe_cuda() ==
        "CUDA 13.0, no cuDNN, no cuBLASLt, no device: CUDA: CUDA driver version is insufficient for CUDA runtime version "
        "(cudaErrorInsufficientDriver) from cudaGetDeviceCount(&count)");
  CHECK(describe_cuda() == "CUDA 13.0, no cuDNN, no cuBLASLt, 1 device: emulated GPU (sm_90, 64 GiB)");
}

TEST_CASE("out of device memory: the cache is given back and the second try counts") {
  CachingAllocator& a = cuda::device_allocator();
  a.trim();
  void* const kept = a.allocate(8 << 20);
  a.release(kept);
  const int before = emulated::live_buffers();
  emulated::fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation);
  void* const p = a.allocate(64 << 20);
  CHECK(emulated::live_buffers() == before);  // the unused 8 MiB went, 64 came
  a.release(p);
  a.trim();
  CHECK(cudaGetLastError() == cudaSuccess);

  emulated::fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation, 2);
  const Error e = error_of([] { Tensor::empty({64 << 20}, DType::kF32, kCuda); });
  CHECK(e.code() == ErrorCode::kMemory);
  CHECK(int(e.code()) == 4);
  CHECK(says(e, "out of memory: 256.0 MiB asked for"));
  CHECK(cudaGetLastError() == cudaSuccess);  // and the next launch is not blamed
}

TEST_CASE("a kernel that fails is named, with what it was given") {
  const Tensor x = Tensor::full({3, 5}, 1, DType::kF32, kCuda);
  emulated::fail_call("launch", 1, cudaErrorLaunchOutOfResources);
  const Error e = error_of([&] { ops::unary(UnaryOp::kSilu, x); });
  CHECK(e.code() == ErrorCode::kBug);
  CHECK(says(e, "cuda kernel silu(0, f32 rows [1 x 15, pitch 15], f32 rows [1 x 15, pitch 15], 1)"));
  CHECK(says(e, "too many resources requested for launch (cudaErrorLaunchOutOfResources)"));
  CHECK(e.hint().find("TESSERA_SYNC=1") != std::string::npos);
  CHECK(ops::unary(UnaryOp::kSquare, x).to_vector<float>() == std::vector<float>(15, 1.0f));  // it goes on
}

TEST_CASE("a lost device is an error at the next call") {
  const Tensor x = Tensor::full({4}, 1, DType::kF32, kCuda);
  emulated::fail_call("cudaStreamSynchronize", 1, cudaErrorIllegalAddress);
  const Error e = error_of([&] { x.to_vector<float>(); });
  CHECK(says(e, "an illegal memory access was encountered (cudaErrorIllegalAddress)"));
}

TEST_CASE("f64 is for the reference backend") {
  const Tensor x = Tensor::full({4}, 1, DType::kF64, kCuda);
  CHECK(says(error_of([&] { ops::unary(UnaryOp::kExp, x); }), "exp: got f64, expected f32, bf16 or f16 on a CUDA device"));
}

TEST_CASE("Philox words are those of the host") {
  for (uint32_t i = 0; i < 100; ++i) {
    const auto host = philox4x32({i, i * 7 + 1, i << 20, 3}, {0xdeadbeefu + i, 17});
    const cuda::PhiloxBlock device = cuda::philox({{i, i * 7 + 1, i << 20, 3}}, 0xdeadbeefu + i, 17);
    for (int w = 0; w < 4; ++w) CHECK(device.word[w] == host[size_t(w)]);
  }
}

}  // namespace
}  // namespace tessera::testing
