// What the CUDA backend does around its kernels, on the emulated runtime: devices, memory, failures and what they say.
#include "tensor/backend.h"

#include <doctest/doctest.h>

#include "cuda/context.h"
#include "cuda/conv.h"
#include "cuda/device/philox.cuh"
#include "cuda/install.h"
#include "cuda/launch.cuh"
#include "tensor/base/rng.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/copy.h"
#include "tensor/ops/detect.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/pointwise.h"
#include "tensor/silent_backend.h"
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

// What it takes it takes, and tiles have the rest.
TEST_CASE("warpgroup kernels run where they can") {
  const auto kernel_of = [](DType type, int64_t in, int64_t out, int64_t size = 1, int64_t side = 4) {
    const Tensor x = Tensor::full({1, side, side, in}, 1, type, kCuda), w = Tensor::full({out, size, size, in}, 1, type, kCuda);
    emulated::fail_call("launch", 1, cudaErrorLaunchOutOfResources);
    const std::string said = error_of([&] { ops::conv2d(x, w, {1, size / 2}); }).message();
    return said.substr(0, said.find('('));
  };
  CHECK(kernel_of(DType::kBF16, 64, 64) == "cuda kernel conv2d, wgmma");
  CHECK(kernel_of(DType::kF16, 16, 40) == "cuda kernel conv2d, wgmma");
  CHECK(kernel_of(DType::kF32, 64, 64) == "cuda kernel conv2d");
  CHECK(kernel_of(DType::kBF16, 64, 16) == "cuda kernel conv2d");  // half a tile
  CHECK(kernel_of(DType::kBF16, 12, 64) == "cuda kernel conv2d");  // no whole packs
  CHECK(kernel_of(DType::kBF16, 64, 64, 3) == "cuda kernel conv2d, patches");
  CHECK(kernel_of(DType::kF16, 128, 80, 3) == "cuda kernel conv2d, patches of many channels");
  CHECK(kernel_of(DType::kF16, 128, 16, 3) == "cuda kernel conv2d");
  CHECK(kernel_of(DType::kBF16, 64, 64, 5) == "cuda kernel conv2d, wgmma");
  CHECK(kernel_of(DType::kBF16, 64, 64, 1, 91) == "cuda kernel conv2d, 1x1");      // 130 tiles
  CHECK(kernel_of(DType::kBF16, 64, 64, 1, 90) == "cuda kernel conv2d, wgmma");    // 127 are too few
  CHECK(kernel_of(DType::kBF16, 4096, 32, 1, 91) == "cuda kernel conv2d, wgmma");  // no room for the filter
  // What is left out others do.
  const auto without = [&](const char* kinds, int64_t in, int64_t out, int64_t size, int64_t side) {
    cuda::wgmma::leave_out(kinds);
    const std::string kernel = kernel_of(DType::kBF16, in, out, size, side);
    cuda::wgmma::leave_out("");
    return kernel;
  };
  CHECK(without("patches", 64, 64, 3, 4) == "cuda kernel conv2d, wgmma");
  CHECK(without("deep", 128, 80, 3, 4) == "cuda kernel conv2d, wgmma");
  CHECK(without("deep,tiles", 128, 80, 3, 4) == "cuda kernel conv2d");
  CHECK(without("pointwise", 64, 64, 1, 91) == "cuda kernel conv2d, wgmma");
  CHECK(without("deep,patches", 64, 64, 1, 91) == "cuda kernel conv2d, 1x1");
  const Error none = error_of([] { cuda::wgmma::leave_out("deep,tile"); });
  CHECK(none.code() == ErrorCode::kUsage);
  CHECK(says(none, "tile, expected some of patches,deep,stride2,pointwise,tiles,filters"));
  // How wide tiles are, by the number of blocks.
  const auto blocks_of = [](int64_t out, int64_t size) {
    const Tensor x = Tensor::full({1, size, size, 64}, 1, DType::kBF16, kCuda),
                 w = Tensor::full({out, 1, 1, 64}, 1, DType::kBF16, kCuda),
                 y = Tensor::empty({1, size, size, out}, DType::kBF16, kCuda);
    emulated::fail_call("launch", 1, cudaErrorLaunchOutOfResources);
    const std::string said = error_of([&] { cuda::wgmma::tile_conv2d(x.image(), w.filter(), y.image(), {1, 0}, {}); }).message();
    const size_t at = said.find("<<<") + 3;
    return said.substr(at, said.find(',', at) - at);
  };
  CHECK(blocks_of(128, 16) == "8x1x1");     // 64 x 64
  CHECK(blocks_of(128, 128) == "128x1x1");  // 128 x 128
  CHECK(blocks_of(128, 127) == "506x1x1");  // 127 of these are too few
  CHECK(blocks_of(120, 128) == "128x1x1");  // less than half of one is idle
  CHECK(blocks_of(192, 128) == "384x1x1");  // 128 x 64
  cuda::set_conv_kernels(cuda::ConvKernels::kTiled);
  CHECK(kernel_of(DType::kBF16, 64, 64) == "cuda kernel conv2d");
  cuda::set_conv_kernels(cuda::ConvKernels::kWgmma);
}

// On the way to memory, of what is stored there: sums before they are rounded have other moments. One launch each, where reading
// the result again would be a third.
TEST_CASE("statistics of a convolution's result come from the kernel that writes it") {
  auto random = [stream = uint64_t{0}](const Shape& shape, DType type) mutable {
    Rng rng(3, RngPurpose::kTest, stream++);
    const Tensor t = Tensor::empty(shape);
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(rng.uniform(-1, 1)) + 0.5f;
    return t.to(type).to(kCuda);
  };
  const int64_t enough = cuda::enough_blocks();
  for (const bool large : {false, true}) {
    cuda::set_enough_blocks(large ? 0 : enough);
    for (const DType type : {DType::kBF16, DType::kF16}) {
      struct Layer {
        int64_t h, w, in, out, size, stride;
      };
      for (const Layer& l : {Layer{13, 11, 64, 64, 1, 1},
                             {13, 11, 128, 80, 1, 1},
                             {9, 9, 256, 32, 1, 1},
                             {13, 11, 48, 136, 3, 2},
                             {21, 19, 64, 64, 3, 1},
                             {35, 18, 48, 80, 3, 1},
                             {17, 16, 32, 16, 3, 1},
                             {37, 21, 16, 32, 3, 2},
                             {11, 19, 96, 80, 3, 1},
                             {9, 8, 144, 136, 3, 1},
                             {18, 33, 32, 64, 3, 2},
                             {37, 139, 3, 24, 3, 2},
                             {13, 11, 64, 16, 1, 1}}) {
        const Tensor x = random({2, l.h, l.w, l.in}, type), w = random({l.out, l.size, l.size, l.in}, type);
        const ConvParams p{l.stride, l.size / 2};
        const uint64_t before = emulated::launches();
        const ops::ConvWithStats got = ops::conv2d_with_stats(x, w, p, 1e-3);
        CHECK(emulated::launches() - before == 2);  // the convolution, and what joins its chunks
        const Tensor y = ops::conv2d(x, w, p);
        const ops::BatchNormStats want = ops::batch_norm_stats(y, 1e-3);
        CHECK(got.y.to(DType::kF32).to_vector<float>() == y.to(DType::kF32).to_vector<float>());
        const auto mean = want.mean.to_vector<float>(), rstd = want.rstd.to_vector<float>();
        const auto got_mean = got.stats.mean.to_vector<float>(), got_rstd = got.stats.rstd.to_vector<float>();
        for (size_t c = 0; c < mean.size(); ++c) {
          const double deviation = 1 / double(rstd[c]);
          CHECK(double(got_mean[c]) == doctest::Approx(double(mean[c])).epsilon(1e-6).scale(deviation));
          CHECK(double(got_rstd[c] / rstd[c]) == doctest::Approx(1).epsilon(1e-5));
        }
      }
    }
  }
  cuda::set_enough_blocks(enough);
  CHECK(emulated::take_reports().empty());
}

// In op cases all tensors lie alike. Of small whole numbers every kernel has the same bits.
TEST_CASE("what a convolution adds may lie where packs of 16 bytes do not, beside operands that are aligned") {
  auto ones = [stream = uint64_t{0}](const Shape& shape) mutable {
    Rng rng(4, RngPurpose::kTest, stream++);
    const Tensor t = Tensor::empty(shape);
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(rng.below(3)) - 1;
    return t.to(DType::kBF16).to(kCuda);
  };
  struct Layer {
    int64_t in, out, size, stride;
  };
  for (const auto kernels : {cuda::ConvKernels::kWgmma, cuda::ConvKernels::kTiled}) {
    cuda::set_conv_kernels(kernels);
    for (const Layer& l : {Layer{16, 24, 3, 1}, {80, 24, 3, 1}, {16, 24, 3, 2}, {64, 40, 1, 1}}) {
      const Tensor x = ones({1, 9, 7, l.in}), w = ones({l.out, l.size, l.size, l.in});
      const ConvParams p{l.stride, l.size / 2};
      const Shape shape = ops::conv2d(x, w, p).shape();
      const Tensor wide = ones({shape[0], shape[1], shape[2], l.out + 9});
      for (const int64_t first : {0, 1, 8}) {  // a pitch that is odd, and a first number that is not aligned either
        const Tensor residual = wide.narrow(3, first, l.out);
        const Tensor got = ops::conv2d(x, w, p, {}, Activation::kNone, residual);
        const Tensor want = ops::conv2d(x, w, p, {}, Activation::kNone, residual.contiguous());
        CHECK(got.to(DType::kF32).to_vector<float>() == want.to(DType::kF32).to_vector<float>());
      }
    }
  }
  cuda::set_conv_kernels(cuda::ConvKernels::kWgmma);
  CHECK(emulated::take_reports().empty());
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

// The packed form is what the kernels write; nothing is copied together or taken apart again.
TEST_CASE("batch norm of several ranks: a few launches, whatever the ranks and channels") {
  for (const int64_t channels : {3, 200}) {
    const Tensor x = Tensor::full({2, 5, 5, channels}, 1, DType::kF32, kCuda);
    const Tensor gamma = Tensor::full({channels}, 1, DType::kF32, kCuda);
    uint64_t before = emulated::launches();
    const auto since = [&] { return emulated::launches() - std::exchange(before, emulated::launches()); };
    const Tensor part = ops::batch_norm_part(x);
    CHECK(since() == 2);
    const Tensor parts = part.view({1, 1 + 2 * channels});
    const ops::BatchNormStats s = ops::batch_norm_join(parts, DType::kF32, 1e-3);
    CHECK(since() == 1);
    const Tensor sums = Tensor::full({1, 2 * channels}, 1, DType::kF32, kCuda);
    since();
    ops::batch_norm_correction(parts, sums, 0, gamma, s.rstd);
    CHECK(since() == 1);
    CHECK(part.to_vector<double>()[0] == 50);
    CHECK(s.mean.to_vector<float>() == std::vector<float>(size_t(channels), 1.0f));
  }
}

// Of one image at 640 pixels with 80 classes, and of more than are worked on at a time.
TEST_CASE("a rehearsal counts what detect takes meanwhile") {
  struct Watched : SilentBackend {
    using SilentBackend::SilentBackend;
    void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) override {
      asked = inner().detect_scratch_bytes(in, params);
      in_use = allocator().stats().bytes_in_use;
      SilentBackend::detect(in, params, detections, coefficients);
    }
    int64_t asked = 0, in_use = 0;
  };
  Backend& device = backend_for(kCuda);
  const AllocatorStats before = device.allocator().stats();
  for (const int64_t images : {1, 40}) {
    Watched silent(device);
    const BackendGuard guard(silent);
    ops::DetectMaps maps;
    maps.strides = {8, 16, 32};
    for (size_t l = 0; l < kAnchorLevels; ++l) {
      const int64_t side = 80 >> l;
      const auto map = [&](int64_t c) { return Tensor::empty({images, side, side, c}, DType::kF32, kCuda); };
      maps.box[l] = map(64), maps.cls[l] = map(80), maps.coefficients[l] = map(32);
    }
    ops::detect(maps, {.multi_label = true});
    const int64_t keys = 8400 * 80 * 8;  // of an image
    CHECK(silent.asked >= std::min<int64_t>(images, 24) * keys);
    CHECK(silent.asked < std::min<int64_t>(images, 25) * keys + 1024);
    CHECK(silent.asked <= int64_t{128} << 20);
    CHECK(silent.allocator().stats().peak_in_use >= silent.in_use + silent.asked);
  }
  CHECK(device.allocator().stats().allocations == before.allocations);

  // And it is what detect takes.
  const Tensor box = Tensor::full({3, 4, 4, 64}, 0, DType::kF32, kCuda), none = Tensor::empty({3, 0, 0, 64}, DType::kF32, kCuda);
  const DetectInput in{{{{box.image(), box.image(), box.image(), 8}, {none.image(), none.image(), none.image(), 16},
                         {none.image(), none.image(), none.image(), 32}}},
                       false,
                       nullptr};
  const DetectParams params{.multi_label = true};
  const Tensor rows = Tensor::empty({3, 300, kDetectionColumns}, DType::kF32, kCuda);
  const Tensor coefficients = Tensor::empty({3, 300, 64}, DType::kF32, kCuda);
  device.allocator().reset_peaks();
  const int64_t in_use = device.allocator().stats().bytes_in_use;
  device.detect(in, params, rows.data<float>(), coefficients.data<float>());
  const int64_t taken = device.allocator().stats().peak_in_use - in_use, told = device.detect_scratch_bytes(in, params);
  CHECK(told > 3 * 16 * 64 * 8);
  CHECK(taken >= told);
  CHECK(taken < told + 2 * 64);  // each of the two is rounded up
}

// Nothing is computed, so the maps need no memory.
TEST_CASE("detect refuses more anchors times classes than the keys count, also where only the best class has one") {
  Backend& device = backend_for(kCuda);
  const auto scratch = [&](int64_t classes, bool multi_label) {
    const auto map = [](int64_t side, int64_t c) { return ImageView{nullptr, DType::kF32, 1, side, side, c, c}; };
    DetectInput in{};
    for (size_t l = 0; l < kAnchorLevels; ++l) {
      const int64_t side = l == 0 ? 1024 : 1;
      in.levels[l] = {map(side, 64), map(side, classes), map(side, 32), float(8 << l)};
    }
    return device.detect_scratch_bytes(in, {.multi_label = multi_label});
  };
  constexpr int64_t kAnchors = 1024 * 1024 + 2;
  CHECK(scratch(2047, false) == kAnchors * 8 + 4);
  CHECK(scratch(2047, true) == kAnchors * 2047 * 8 + 4);
  for (const bool multi_label : {false, true}) {
    CHECK(says(error_of([&] { scratch(2048, multi_label); }), "a size of 2147487744, expected at most"));
  }
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
