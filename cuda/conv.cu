// Convolution and its transpose, channels last.
#include "cuda/kernels.h"
#include "cuda/unfinished.h"

namespace tessera::cuda {

void conv2d(ImageView, FilterView, ImageView, const ConvParams&, const ConvEpilogue&) { no_kernel("conv2d"); }
void conv2d_backward_data(ImageView, FilterView, ImageView, const ConvParams&, bool) { no_kernel("conv2d_backward_data"); }
void conv2d_backward_weight(ImageView, ImageView, FilterView, const ConvParams&, bool) { no_kernel("conv2d_backward_weight"); }
void bias_backward(RowsView, void*, bool) { no_kernel("bias_backward"); }
void conv_transpose2x2(ImageView, FilterView, ImageView, const void*) { no_kernel("conv_transpose2x2"); }
void conv_transpose2x2_backward_data(ImageView, FilterView, ImageView, bool) { no_kernel("conv_transpose2x2_backward_data"); }
void conv_transpose2x2_backward_weight(ImageView, ImageView, FilterView, bool) { no_kernel("conv_transpose2x2_backward_weight"); }

}  // namespace tessera::cuda
