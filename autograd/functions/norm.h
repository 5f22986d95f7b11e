// Differentiable batch normalisation in training mode, alone or fused with SiLU and a residual sum; formulas and types in
// tensor/ops/norm.h.
#pragma once

#include "autograd/variable.h"
#include "tensor/comm.h"
#include "tensor/ops/norm.h"

namespace tessera::ag {

struct BatchNormState {
  Tensor running_mean, running_var;  // (C), updated: r = (1 - momentum) r + momentum * batch; the variance unbiased
  double momentum = 0.03;
  double eps = 1e-3;
  // Not null: mean and variance are those of all ranks' rows together, and so are the sums in the gradient of x. dgamma and dbeta
  // stay this rank's part. Of f32 vectors that every rank sends, joined in f64.
  Communicator* ranks = nullptr;
  // Convolutions that read the result make it again in their backward pass instead of keeping it. Not with a residual, nor when it
  // goes into a tensor that is there anyway.
  bool recompute = false;
};

// Normalises with the statistics of this batch and updates the running ones, unless they are known (from conv2d_with_stats, which
// has updated them). residual may be undefined; the result goes into `into` when given. Keeps x, mean and rstd only.
Variable batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, const BatchNormState& state,
                          Activation act = Activation::kNone, const Variable& residual = {}, const Tensor& into = {},
                          const ops::BatchNormStats& known = {});

// Normalises with fixed statistics (running ones), as evaluation and frozen layers do.
Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const BatchNormState& state,
                         Activation act = Activation::kNone, const Variable& residual = {}, const Tensor& into = {});

}  // namespace tessera::ag
