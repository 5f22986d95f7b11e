// A network whose weights are the formula's (tests/support/formula.h), for fixtures that store no weights.
#pragma once

#include "tests/support/formula.h"
#include "yolo/model.h"

namespace tessera::testing {

inline void set_formula_weights(YoloSeg& model) {
  for (const auto& [name, tensor] : model.state_dict()) {
    if (tensor.dtype() != DType::kF32) {
      tensor.fill(0);
      continue;
    }
    if (tensor.rank() != 4) {
      tensor.copy_from(formula_weight(name, tensor.shape()));
      continue;
    }
    // PyTorch order (O, I, kH, kW), transposed convolution (I, O, 2, 2), to ours.
    const bool transposed = name.ends_with("upsample.weight");
    const int64_t o = tensor.size(0), k = tensor.size(1), i = tensor.size(3);
    const Tensor w = formula_weight(name, transposed ? Shape{i, o, k, k} : Shape{o, i, k, tensor.size(2)});
    tensor.copy_from(transposed ? w.permute({1, 2, 3, 0}) : w.permute({0, 2, 3, 1}));
  }
}

}  // namespace tessera::testing
