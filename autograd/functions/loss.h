// Differentiable loss terms, each a scalar sum; formulas and shapes in tensor/ops/losses.h. Targets, weights and masks are
// constants, without gradients. Everything, the sum too, is on the device of the predictions.
#pragma once

#include <span>

#include "autograd/variable.h"
#include "tensor/ops/losses.h"

namespace tessera::ag {

// `into`, one element, receives the sum where it is given: sums that lie side by side are joined without a copy.
Variable bce_with_logits(const Variable& x, const Tensor& target);
Variable bce_with_labels(std::span<const Variable> x, const Tensor& label, const Tensor& score, const Tensor& into = {});
Variable ciou_loss(const Variable& boxes, const Tensor& target, const Tensor& weight, const Tensor& into = {});
Variable dfl_loss(const Variable& logits, const Tensor& target, const Tensor& weight, const Tensor& into = {});

// The fields of MaskLossItems as tensors.
struct MaskLossTargets {
  Tensor image, target;  // i32 (count)
  Tensor boxes, area;    // f32 (count, 4), (count)
  bool overlap = true;
};
Variable mask_loss(const Variable& coefficients, const Variable& prototypes, const Tensor& masks, const MaskLossTargets& targets,
                   const Tensor& into = {});

}  // namespace tessera::ag
