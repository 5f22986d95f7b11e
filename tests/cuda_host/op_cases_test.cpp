// Every CUDA kernel against the reference, on the emulated GPU.
#include "tests/op_cases/op_cases.h"

#include <set>

#include "cuda/conv.h"
#include "tests/cuda_host/emulator.h"

namespace tessera::testing {
namespace {

// Methods whose kernels are still to come: a line goes with the kernel that arrives.
const std::set<std::string> kUnfinished = {
    "softmax",
    "softmax_backward",  //
    "gather_rows",
    "scatter_add_rows",  //
    "max_pool2d",
    "max_pool2d_backward",
    "upsample2x",
    "upsample2x_backward",  //
    "batch_norm_stats",
    "batch_norm_apply",
    "batch_norm_backward",  //
    "bce_with_logits",
    "bce_with_logits_backward",
    "ciou_loss",
    "ciou_loss_backward",
    "dfl_loss",
    "dfl_loss_backward",  //
    "mask_loss",
    "mask_loss_backward",  //
    "sgd",
    "adam",
    "lerp",
    "sum_of_squares",
    "all_finite",  //
    "uniform",
    "normal",  //
};

void run_emulated(const std::vector<OpCase>& cases) {
  std::vector<OpCase> finished;
  for (const OpCase& c : cases) {
    if (!kUnfinished.contains(c.method)) finished.push_back(c);
  }
  run_cases(finished, Device::Kind::kCuda);
  const auto reports = emulated::take_reports();
  CHECK_MESSAGE(reports.empty(), reports.size(), " reports of the emulated GPU, seed ", emulated::seed(),
                ", the first: ", reports.empty() ? "" : reports[0]);
}

TEST_CASE("pointwise and copy kernels, emulated") { run_emulated(pointwise_cases()); }
TEST_CASE("kernels over rows, emulated") { run_emulated(row_cases()); }
TEST_CASE("pooling and batch norm kernels, emulated") { run_emulated(image_cases()); }
TEST_CASE("convolution and matrix kernels, emulated") {
  for (const cuda::ConvKernels kernels : {cuda::ConvKernels::kNaive, cuda::ConvKernels::kTiled}) {
    cuda::set_conv_kernels(kernels);
    CAPTURE(int(kernels));
    run_emulated(conv_cases());
  }
}
TEST_CASE("loss kernels, emulated") { run_emulated(loss_cases()); }
TEST_CASE("optimizer and random kernels, emulated") { run_emulated(optim_cases()); }

}  // namespace
}  // namespace tessera::testing
