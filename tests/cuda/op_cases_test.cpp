// Every CUDA kernel against the reference, on a GPU: the cases that test_cuda_host runs on the emulated one.
#include <cstdlib>
#include <string_view>

#include "cuda/install.h"
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

constexpr auto kCuda = Device::Kind::kCuda;
void run_on_device(const std::vector<OpCase>& cases) { run_cases(cases, kCuda); }

TEST_CASE("pointwise and copy kernels") { run_on_device(pointwise_cases()); }
TEST_CASE("kernels over rows") { run_on_device(row_cases()); }
TEST_CASE("pooling and batch norm kernels") { run_on_device(image_cases()); }
TEST_CASE("convolution and matrix kernels") {
  const auto is = [](const char* name, std::string_view value) { const char* v = std::getenv(name); return v != nullptr && v == value; };
  const bool vendor = is("TESSERA_CONV", "cudnn");
  op_case::bits_repeat = !vendor || is("TESSERA_DETERMINISTIC", "1");
  op_case::vendor_rounding = vendor ? 4 : 1;
  run_on_device(conv_cases());
  if (!vendor) {  // the cases are small: by themselves they never take large tiles, nor chunks of several patches
    const int64_t enough = exchange_enough_blocks(0);
    run_on_device(conv_cases());
    exchange_enough_blocks(enough);
  }
  op_case::bits_repeat = true;
  op_case::vendor_rounding = 1;
}
TEST_CASE("loss kernels") { run_on_device(loss_cases()); }
TEST_CASE("assignment and detection kernels") {
  run_on_device(assign_cases());
  run_on_device(detect_cases());
}
TEST_CASE("optimizer and random kernels") { run_on_device(optim_cases()); }

TEST_CASE("short list" * doctest::skip()) { run_on_device(small_op_cases()); }  // under compute-sanitizer

TEST_CASE("op rates" * doctest::skip()) { print_rates(all_op_cases(), kCuda); }

}  // namespace
}  // namespace tessera::testing
