// Convolution and its transpose: which kernels run (cuda/conv.h).
#include "cuda/conv.h"
#include "cuda/kernels.h"

namespace tessera::cuda {

void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  naive::conv2d(x, w, y, p, epilogue);
}
void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  naive::conv2d_backward_data(dy, w, dx, p, accumulate);
}
void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  naive::conv2d_backward_weight(x, dy, dw, p, accumulate);
}
void bias_backward(RowsView dy, void* dbias, bool accumulate) { naive::bias_backward(dy, dbias, accumulate); }
void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) { naive::conv_transpose2x2(x, w, y, bias); }
void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  naive::conv_transpose2x2_backward_data(dy, w, dx, accumulate);
}
void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  naive::conv_transpose2x2_backward_weight(x, dy, dw, accumulate);
}

}  // namespace tessera::cuda
