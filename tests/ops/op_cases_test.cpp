// Every kernel of the CPU backends against the reference.
#include "tensor/base/env.h"
#include "tensor/cpu/amx.h"
#include "tests/op_cases/op_cases.h"

namespace tessera::testing {
namespace {

// Cases go through every backend of this CPU, whichever is chosen: where one is (the variants of ctest), they would say nothing new,
// but for AVX-512 without the tiles that are used otherwise, and for convolutions by plain loops.
void run(const std::vector<OpCase>& cases, bool convolutions = false) {
  const auto chosen = env("TESSERA_CPU_BACKEND");
  if ((chosen && !(chosen == "avx512" && cpu::has_amx())) || (env("TESSERA_CONV") == "naive" && !convolutions)) {
    MESSAGE("left to the program without TESSERA_CPU_BACKEND and TESSERA_CONV, which runs these cases on every backend");
    return;
  }
  run_cases(cases);
}

TEST_CASE("pointwise and copy kernels") { run(pointwise_cases()); }
TEST_CASE("kernels over rows") { run(row_cases()); }
TEST_CASE("pooling and batch norm kernels") { run(image_cases()); }
TEST_CASE("convolution and matrix kernels") { run(conv_cases(), true); }
TEST_CASE("loss kernels") { run(loss_cases()); }
TEST_CASE("assignment and detection kernels") {
  run(assign_cases());
  run(detect_cases());
}
TEST_CASE("optimizer and random kernels") { run(optim_cases()); }

}  // namespace
}  // namespace tessera::testing
