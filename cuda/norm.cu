// Batch normalisation, alone or fused with SiLU and a residual sum.
#include "cuda/kernels.h"
#include "cuda/unfinished.h"

namespace tessera::cuda {

void batch_norm_stats(RowsView, void*, void*) { no_kernel("batch_norm_stats"); }
void batch_norm_apply(RowsView, const BatchNormView&, Activation, RowsView, RowsView) { no_kernel("batch_norm_apply"); }
void batch_norm_backward(RowsView, RowsView, const BatchNormView&, Activation, RowsView, void*, void*, bool) {
  no_kernel("batch_norm_backward");
}

}  // namespace tessera::cuda
