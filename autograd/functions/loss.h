// Differentiable loss terms, each a scalar sum; formulas in tensor/ops/losses.h. Targets, weights and masks are constants, on the
// device of the predictions. The sum is on the host wherever the predictions are: a kernel hands it over as a number, and what is
// done with it, forward and backward, is a handful of operations on single numbers.
#pragma once

#include <memory>
#include <vector>

#include "autograd/variable.h"
#include "tensor/ops/losses.h"

namespace tessera::ag {

Variable bce_with_logits(const Variable& x, const Tensor& target);
Variable ciou_loss(const Variable& boxes, const Tensor& target, const Tensor& weight);
Variable dfl_loss(const Variable& logits, const Tensor& target, const Tensor& weight);

// Owns what MaskLossItems points to, on the host; mask_loss takes it to the device.
struct MaskLossTargets {
  std::vector<int32_t> image, target;
  std::vector<float> boxes, area;
  bool overlap = true;
  MaskLossItems items() const {
    return {int64_t(image.size()), image.data(), target.data(), boxes.data(), area.data(), overlap};
  }
};
Variable mask_loss(const Variable& coefficients, const Variable& prototypes, const Tensor& masks,
                   std::shared_ptr<const MaskLossTargets> targets);

}  // namespace tessera::ag
