// Loss kernels: cross-entropy, CIoU, distribution focal loss, cropped mask cross-entropy.
#include "cuda/kernels.h"
#include "cuda/unfinished.h"

namespace tessera::cuda {

double bce_with_logits(RowsView, RowsView) { no_kernel("bce_with_logits"); }
void bce_with_logits_backward(RowsView, RowsView, double, RowsView, bool) { no_kernel("bce_with_logits_backward"); }
double ciou_loss(RowsView, RowsView, const void*, void*) { no_kernel("ciou_loss"); }
void ciou_loss_backward(RowsView, RowsView, const void*, double, RowsView) { no_kernel("ciou_loss_backward"); }
double dfl_loss(RowsView, RowsView, const void*) { no_kernel("dfl_loss"); }
void dfl_loss_backward(RowsView, RowsView, const void*, double, RowsView, bool) { no_kernel("dfl_loss_backward"); }
double mask_loss(RowsView, ImageView, const int32_t*, const MaskLossItems&) { no_kernel("mask_loss"); }
void mask_loss_backward(RowsView, ImageView, const int32_t*, const MaskLossItems&, double, RowsView, ImageView) {
  no_kernel("mask_loss_backward");
}

}  // namespace tessera::cuda
