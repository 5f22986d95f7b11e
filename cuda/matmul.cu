// Batched matrix product: which kernels run (cuda/conv.h).
#include "cuda/conv.h"
#include "cuda/conv_vendor.h"
#include "cuda/kernels.h"

namespace tessera::cuda {

void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  const ConvKernels kernels = conv_kernels();
  if (kernels == ConvKernels::kVendor && vendor::matmul(a, b, c, accumulate)) return;
  (kernels == ConvKernels::kNaive ? naive::matmul : tiled::matmul)(a, b, c, accumulate);
}

}  // namespace tessera::cuda
