// Loss kernels worth fusing: binary cross-entropy, CIoU, distribution focal loss, cropped mask cross-entropy (spec 7). Each has a
// forward that leaves a scalar, the sum over all rows, and a backward that gives `scale` times the gradient of that sum. Both
// numbers lie where the rows do and have their type, so that a device hands the one to the other without the host.
#pragma once

#include <span>
#include <vector>

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

inline constexpr size_t kMostMaps = 4;

class LossOps {
 public:
  virtual ~LossOps() = default;
  // Whether prototypes, their gradient and that of labelled logits may have 16 bits where all else is f32.
  virtual bool losses_take_narrow() const { return false; }
  // sum over all elements of max(x,0) - x*t + log(1 + exp(-|x|)), whose gradient is sigmoid(x) - t.
  virtual void bce_with_logits(RowsView x, RowsView target, void* sum) = 0;
  virtual void bce_with_logits_backward(RowsView x, RowsView target, const void* scale, RowsView dx, bool accumulate) = 0;

  // The same over the rows of a few maps (at most kMostMaps), one map after the other, whose targets are score[r] in column label[r] of
  // row r and 0 elsewhere; label -1: 0 everywhere. label and score have a place for each row of all maps. dx is written.
  virtual void bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, void* sum) = 0;
  virtual void bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score, const void* scale,
                                        std::span<const RowsView> dx) = 0;

  // boxes (n x 4, corners) against target: sum of weight[i] * (1 - CIoU) (Zheng et al. 2020; alpha constant in the gradient,
  // spec 7.4). ciou (n values, may be null) receives the CIoU itself.
  virtual void ciou_loss(RowsView boxes, RowsView target, const void* weight, void* ciou, void* sum) = 0;
  virtual void ciou_loss_backward(RowsView boxes, RowsView target, const void* weight, const void* scale, RowsView dboxes) = 0;

  // logits (n x 4*bins), target distances (n x 4, in [0, bins-1)): sum of weight[i] * mean over the 4 sides of
  // (1-r) * CE(floor t) + r * CE(floor t + 1), r = t - floor t (Li et al. 2020).
  virtual void dfl_loss(RowsView logits, RowsView target, const void* weight, void* sum) = 0;
  virtual void dfl_loss_backward(RowsView logits, RowsView target, const void* weight, const void* scale, RowsView dlogits,
                                 bool accumulate) = 0;

  // coefficients (count x k), prototypes (N, mh, mw, k), masks i32 (N or planes, mh, mw): for each item the mean over all mh*mw
  // pixels of the cross-entropy between sum_k c*p and the object's mask, counted inside its box only (x >= x1, x < x2, likewise y),
  // divided by area; summed over the items (spec 7.6).
  virtual void mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, void* sum) = 0;
  // Both gradients are written, that of the prototypes in their type.
  virtual void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                                  const void* scale, RowsView dcoefficients, ImageView dprototypes) = 0;
};

namespace ops {
// Sums and scales are tensors of one element, of the type and on the device of the first argument; `into`, where it is given, is the
// sum.
Tensor bce_with_logits(const Tensor& x, const Tensor& target);
void bce_with_logits_backward(const Tensor& x, const Tensor& target, const Tensor& scale, const Tensor& dx, bool accumulate);
// x (rows..., classes), label i32 and score f32 of all rows.
Tensor bce_with_labels(std::span<const Tensor> x, const Tensor& label, const Tensor& score, const Tensor& into = {});
// Gradients of `type`, which may be of 16 bits where the backend writes them (losses_take_narrow).
std::vector<Tensor> bce_with_labels_backward(std::span<const Tensor> x, const Tensor& label, const Tensor& score, const Tensor& scale,
                                             DType type);
std::vector<Tensor> bce_with_labels_backward(std::span<const Tensor> x, const Tensor& label, const Tensor& score, const Tensor& scale);
Tensor ciou_loss(const Tensor& boxes, const Tensor& target, const Tensor& weight, const Tensor& ciou = {}, const Tensor& into = {});
Tensor ciou_loss_backward(const Tensor& boxes, const Tensor& target, const Tensor& weight, const Tensor& scale);
Tensor dfl_loss(const Tensor& logits, const Tensor& target, const Tensor& weight, const Tensor& into = {});
Tensor dfl_loss_backward(const Tensor& logits, const Tensor& target, const Tensor& weight, const Tensor& scale);
// Prototypes of 16 bits where the backend reads them (losses_take_narrow); all else is wide.
Tensor mask_loss(const Tensor& coefficients, const Tensor& prototypes, const Tensor& masks, const MaskLossItems& items,
                 const Tensor& into = {});
void mask_loss_backward(const Tensor& coefficients, const Tensor& prototypes, const Tensor& masks, const MaskLossItems& items,
                        const Tensor& scale, const Tensor& dcoefficients, const Tensor& dprototypes);
}  // namespace ops

}  // namespace tessera
