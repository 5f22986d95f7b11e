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
  // Not null: mean and variance are taken over the rows of all ranks, and so are the sums in the gradient of x, while dgamma and
  // dbeta stay this rank's part. Every rank sends vectors of its own, and all of them are joined in f64.
  Communicator* ranks = nullptr;
  // Convolutions that read the result make it again in their backward pass instead of keeping it (ADR 11). Has no effect with a
  // residual, or when the result goes into a given tensor, which is kept anyway.
  bool recompute = false;
};

// y = act((x - mean) / sqrt(var + eps) gamma + beta) + residual, with the mean and variance of this batch over all but the last
// axis. Updates the running statistics; not if `known`, which comes from conv2d_with_stats(), holds those of the batch, since that
// has updated them. gamma and beta (C). residual, of the shape of x, may be undefined. The result goes into `into` when that is
// defined. Keeps x, mean and rstd for the backward pass.
Variable batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, const BatchNormState& state,
                          Activation act = Activation::kNone, const Variable& residual = {}, const Tensor& into = {},
                          const ops::BatchNormStats& known = {});

// The same with the running statistics in the place of the batch's, as in evaluation and in frozen layers. TESSERA_CHECK: `into` in
// a call that is recorded.
Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const BatchNormState& state,
                         Activation act = Activation::kNone, const Variable& residual = {}, const Tensor& into = {});

}  // namespace tessera::ag
