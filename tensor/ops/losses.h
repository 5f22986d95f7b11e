// Loss kernels worth fusing: binary cross-entropy, CIoU, distribution focal loss, cropped mask cross-entropy (spec 7). Each has a
// forward that returns a scalar sum and a backward that adds `scale` times the gradient of that sum.
#pragma once

#include "tensor/tensor.h"

namespace tessera {

// Positives of the mask term, one entry for each matched anchor.
struct MaskLossItems {
  int64_t count;
  const int32_t* image;    // index into the prototypes
  const int32_t* target;   // overlap: the value of the index map that is this object; separate: index of its plane
  const float* boxes;      // count x 4, x1 y1 x2 y2 in prototype pixels (unrounded)
  const float* area;       // normalised box area (fraction of the image), > 0
  bool overlap;
};

class LossOps {
 public:
  virtual ~LossOps() = default;
  // sum over all elements of max(x,0) - x*t + log(1 + exp(-|x|)).
  virtual double bce_with_logits(RowsView x, RowsView target) = 0;
  virtual void bce_with_logits_backward(RowsView x, RowsView target, double scale, RowsView dx, bool accumulate) = 0;  // (sigmoid(x) - t) * scale

  // boxes (n x 4, corners) against target: sum of weight[i] * (1 - CIoU) (Zheng et al. 2020; alpha constant in the gradient,
  // spec 7.4). ciou (n values, may be null) receives the CIoU itself.
  virtual double ciou_loss(RowsView boxes, RowsView target, const void* weight, void* ciou) = 0;
  virtual void ciou_loss_backward(RowsView boxes, RowsView target, const void* weight, double scale, RowsView dboxes) = 0;

  // logits (n x 4*bins), target distances (n x 4, in [0, bins-1)): sum of weight[i] * mean over the 4 sides of
  // (1-r) * CE(floor t) + r * CE(floor t + 1), r = t - floor t (Li et al. 2020).
  virtual double dfl_loss(RowsView logits, RowsView target, const void* weight) = 0;
  virtual void dfl_loss_backward(RowsView logits, RowsView target, const void* weight, double scale, RowsView dlogits, bool accumulate) = 0;

  // coefficients (count x k), prototypes (N, mh, mw, k), masks i32 (N or planes, mh, mw): for each item the mean over all mh*mw
  // pixels of the cross-entropy between sum_k c*p and the object's mask, counted inside its box only (x >= x1, x < x2, likewise y),
  // divided by area; summed over the items (spec 7.6).
  virtual double mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items) = 0;
  // Both gradients are added to.
  virtual void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                                  double scale, RowsView dcoefficients, ImageView dprototypes) = 0;
};

namespace ops {
double bce_with_logits(const Tensor& x, const Tensor& target);
void bce_with_logits_backward(const Tensor& x, const Tensor& target, double scale, const Tensor& dx, bool accumulate);
double ciou_loss(const Tensor& boxes, const Tensor& target, const Tensor& weight, const Tensor& ciou = {});
Tensor ciou_loss_backward(const Tensor& boxes, const Tensor& target, const Tensor& weight, double scale);
double dfl_loss(const Tensor& logits, const Tensor& target, const Tensor& weight);
Tensor dfl_loss_backward(const Tensor& logits, const Tensor& target, const Tensor& weight, double scale);
double mask_loss(const Tensor& coefficients, const Tensor& prototypes, const Tensor& masks, const MaskLossItems& items);
void mask_loss_backward(const Tensor& coefficients, const Tensor& prototypes, const Tensor& masks, const MaskLossItems& items,
                        double scale, const Tensor& dcoefficients, const Tensor& dprototypes);
}  // namespace ops

}  // namespace tessera
