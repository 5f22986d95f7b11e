// Differentiable loss terms, each a scalar sum; formulas in tensor/ops/losses.h. Targets, weights and masks are constants. All of it,
// the sum too, is on the device of the predictions.
#pragma once

#include "autograd/variable.h"
#include "tensor/ops/losses.h"

namespace tessera::ag {

Variable bce_with_logits(const Variable& x, const Tensor& target);
Variable ciou_loss(const Variable& boxes, const Tensor& target, const Tensor& weight);
Variable dfl_loss(const Variable& logits, const Tensor& target, const Tensor& weight);

// The fields of MaskLossItems as tensors.
struct MaskLossTargets {
  Tensor image, target;  // i32 (count)
  Tensor boxes, area;    // f32 (count, 4), (count)
  bool overlap = true;
};
Variable mask_loss(const Variable& coefficients, const Variable& prototypes, const Tensor& masks, const MaskLossTargets& targets);

}  // namespace tessera::ag
