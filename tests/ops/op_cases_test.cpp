// Every kernel of the CPU backends against the reference.
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

TEST_CASE("pointwise and copy kernels") { run_cases(pointwise_cases()); }
TEST_CASE("kernels over rows") { run_cases(row_cases()); }
TEST_CASE("pooling and batch norm kernels") { run_cases(image_cases()); }
TEST_CASE("convolution and matrix kernels") { run_cases(conv_cases()); }
TEST_CASE("loss kernels") { run_cases(loss_cases()); }
TEST_CASE("assignment and detection kernels") {
  run_cases(assign_cases());
  run_cases(detect_cases());
}
TEST_CASE("optimizer and random kernels") { run_cases(optim_cases()); }

}  // namespace
}  // namespace tessera::testing
