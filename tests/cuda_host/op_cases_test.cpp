// Every CUDA kernel against the reference, on the emulated GPU.
#include "tests/op_cases/op_cases.h"

#include "cuda/conv.h"
#include "tests/cuda_host/emulator.h"

namespace tessera::testing {
namespace {

void run_emulated(const std::vector<OpCase>& cases) {
  run_cases(cases, Device::Kind::kCuda);
  const auto reports = emulated::take_reports();
  CHECK_MESSAGE(reports.empty(), reports.size(), " reports of the emulated GPU, seed ", emulated::seed(),
                ", the first: ", reports.empty() ? "" : reports[0]);
}

TEST_CASE("pointwise and copy kernels, emulated") { run_emulated(pointwise_cases()); }
TEST_CASE("kernels over rows, emulated") { run_emulated(row_cases()); }
TEST_CASE("pooling and batch norm kernels, emulated") { run_emulated(image_cases()); }
TEST_CASE("convolution and matrix kernels, emulated") {
  using enum cuda::ConvKernels;
  for (const cuda::ConvKernels kernels : {kNaive, kWgmma, kTiled}) {
    cuda::set_conv_kernels(kernels);
    CAPTURE(int(kernels));
    run_emulated(conv_cases());
  }
  // The cases are small: by themselves they never take large tiles, and chunks of filters' gradients have one patch each.
  const int64_t enough = cuda::enough_blocks();
  cuda::set_enough_blocks(0);
  for (const cuda::ConvKernels kernels : {kWgmma, kTiled}) {
    cuda::set_conv_kernels(kernels);
    CAPTURE(int(kernels));
    run_emulated(conv_cases());
  }
  cuda::set_enough_blocks(enough);
}
TEST_CASE("loss kernels, emulated") { run_emulated(loss_cases()); }
TEST_CASE("assignment kernels, emulated") { run_emulated(assign_cases()); }
TEST_CASE("detection kernels, emulated") { run_emulated(detect_cases()); }
TEST_CASE("optimizer and random kernels, emulated") { run_emulated(optim_cases()); }

}  // namespace
}  // namespace tessera::testing
