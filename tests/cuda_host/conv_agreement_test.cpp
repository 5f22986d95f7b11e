// What tests/cuda/conv_sizes_test.cpp asks of a GPU at the sizes of networks, of the emulated one at small ones: it has one
// multiprocessor, so that these too have several tiles for a block.
#include "tests/support/conv_agreement.h"

#include "cuda/conv.h"
#include "tests/cuda_host/emulator.h"

namespace tessera::testing {
namespace {

TEST_CASE("kernels that run when nobody chooses have the bits of direct ones, of whole numbers") {
  const int64_t enough = cuda::enough_blocks();
  cuda::set_enough_blocks(2);  // no image here would be large enough for some of them
  check_agreement({1, 29, 17, 80, 72, 1, 1}, DType::kBF16);
  check_agreement({1, 17, 33, 32, 40, 3, 1}, DType::kBF16);
  check_agreement({2, 13, 10, 80, 80, 3, 1}, DType::kF16);
  check_agreement({1, 35, 21, 16, 32, 3, 2}, DType::kBF16);
  cuda::set_enough_blocks(enough);
  CHECK(emulated::take_reports().empty());
}

// Two that differ are told apart.
TEST_CASE("a difference of bits has its place") {
  const Tensor a = Tensor::full({2, 3, 4, 5}, 1, DType::kBF16), b = a.clone();
  CHECK(conv_agreement::difference(a, b).empty());
  b.data<BFloat16>()[((1 * 3 + 2) * 4 + 1) * 5 + 3] = BFloat16(2.0f);
  CHECK(conv_agreement::difference(a, b) == "1 of 120 numbers, the first at (1, 2, 1, 3)");
}

}  // namespace
}  // namespace tessera::testing
