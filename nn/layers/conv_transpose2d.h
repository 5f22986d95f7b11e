// Transposed convolution with kernel = stride = 2 and bias: doubles height and width. Weight (O, 2, 2, I).
#pragma once

#include "nn/module.h"

namespace tessera {

class ConvTranspose2d : public UnaryModule {
 public:
  ConvTranspose2d(int64_t in, int64_t out);
  Variable forward(const Variable& x, const Tensor& into = {}) override;  // into is not supported
  std::string kind() const override { return "ConvTranspose2d"; }
  std::string summary() const override;

  Variable weight;
  Variable bias;
  bool feeds_convolution = false;  // as in ConvBnAct
  bool recompute = false;          // the result is made again in the backward pass: recompute_activations()
};

}  // namespace tessera
