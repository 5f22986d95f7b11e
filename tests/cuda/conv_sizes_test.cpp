// Convolutions at the sizes of networks at 640 pixels, on a GPU (tests/support/conv_agreement.h). A case for each kind of kernels,
// each of which tools/gpu_check.sh gives a process of its own.
#include "tests/support/conv_agreement.h"

namespace tessera::testing {
namespace {

void check_all(const std::vector<ConvSize>& sizes) {
  for (const ConvSize& s : sizes) check_agreement(s, DType::kBF16);
  check_agreement(sizes[0], DType::kF16);
}

// Of n and s: those that have many tiles for a block, several tiles of columns, columns and slabs that are not whole.
TEST_CASE("real sizes, 1x1") {
  check_all({{16, 80, 80, 64, 64, 1, 1},
             {16, 160, 160, 32, 32, 1, 1},
             {16, 160, 160, 48, 32, 1, 1},
             {16, 80, 80, 128, 64, 1, 1},
             {16, 40, 40, 192, 128, 1, 1},
             {16, 80, 80, 80, 96, 1, 1},
             {16, 40, 40, 384, 128, 1, 1},
             {16, 20, 20, 512, 256, 1, 1},
             {3, 83, 71, 144, 72, 1, 1}});
}
TEST_CASE("real sizes, 3x3 of few channels") {
  check_all({{16, 80, 80, 32, 32, 3, 1},
             {16, 160, 160, 16, 16, 3, 1},
             {16, 80, 80, 64, 64, 3, 1},
             {16, 80, 80, 64, 80, 3, 1},
             {16, 40, 40, 64, 128, 3, 1},
             {3, 83, 71, 48, 40, 3, 1}});
}
TEST_CASE("real sizes, 3x3 of many channels") {
  check_all({{16, 80, 80, 80, 80, 3, 1},
             {16, 40, 40, 128, 64, 3, 1},
             {16, 40, 40, 128, 128, 3, 1},
             {16, 20, 20, 256, 80, 3, 1},
             {16, 20, 20, 256, 256, 3, 1},
             {16, 40, 40, 96, 96, 3, 1},
             {3, 43, 37, 144, 72, 3, 1}});
}
TEST_CASE("real sizes, 3x3 at stride 2") {
  check_all({{16, 320, 320, 16, 32, 3, 2},
             {16, 160, 160, 32, 64, 3, 2},
             {16, 80, 80, 64, 64, 3, 2},
             {16, 80, 80, 64, 128, 3, 2},
             {16, 40, 40, 128, 256, 3, 2},
             {3, 163, 147, 24, 40, 3, 2}});
}
// The largest: more than 2^31 bytes in a tensor of 2^29 numbers.
TEST_CASE("real sizes, x at batch 64") {
  check_agreement({64, 320, 320, 80, 160, 3, 2}, DType::kBF16);
  check_agreement({64, 160, 160, 80, 80, 3, 1}, DType::kBF16);
  check_agreement({64, 160, 160, 160, 160, 1, 1}, DType::kBF16);
}

}  // namespace
}  // namespace tessera::testing
