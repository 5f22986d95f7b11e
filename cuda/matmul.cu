// Batched matrix product: which kernels run (cuda/conv.h).
#include "cuda/conv.h"
#include "cuda/kernels.h"

namespace tessera::cuda {

void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  (conv_kernels() == ConvKernels::kNaive ? naive::matmul : tiled::matmul)(a, b, c, accumulate);
}

}  // namespace tessera::cuda
