// Convolution and its transpose: which kernels run (cuda/conv.h).
#include "cuda/conv.h"
#include "cuda/kernels.h"
#include "tensor/conv_choice.h"

namespace tessera::cuda {

namespace {
ConvKernels& in_use() {
  static ConvKernels kernels = conv_choice() == ConvChoice::kReference ? ConvKernels::kNaive : ConvKernels::kTiled;
  return kernels;
}

bool plain() { return conv_kernels() == ConvKernels::kNaive; }
}  // namespace

ConvKernels conv_kernels() { return in_use(); }
void set_conv_kernels(ConvKernels kernels) { in_use() = kernels; }

void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  (plain() ? naive::conv2d : tiled::conv2d)(x, w, y, p, epilogue);
}
void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  (plain() ? naive::conv2d_backward_data : tiled::conv2d_backward_data)(dy, w, dx, p, accumulate);
}
void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  (plain() ? naive::conv2d_backward_weight : tiled::conv2d_backward_weight)(x, dy, dw, p, accumulate);
}
void bias_backward(RowsView dy, void* dbias, bool accumulate) {
  (plain() ? naive::bias_backward : tiled::bias_backward)(dy, dbias, accumulate);
}
void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  (plain() ? naive::conv_transpose2x2 : tiled::conv_transpose2x2)(x, w, y, bias);
}
void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  (plain() ? naive::conv_transpose2x2_backward_data : tiled::conv_transpose2x2_backward_data)(dy, w, dx, accumulate);
}
void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  (plain() ? naive::conv_transpose2x2_backward_weight : tiled::conv_transpose2x2_backward_weight)(x, dy, dw, accumulate);
}

}  // namespace tessera::cuda
