// Batch normalisation over (N, H, W) with running statistics, eps 1e-3 and momentum 0.03 (spec 1.3).
#pragma once

#include "autograd/functions/norm.h"
#include "nn/module.h"

namespace tessera {

class BatchNorm2d : public UnaryModule {
 public:
  explicit BatchNorm2d(int64_t channels);
  Variable forward(const Variable& x, const Tensor& into = {}) override { return forward(x, Activation::kNone, {}, into); }
  // y = act(bn(x)) + residual in one pass, with the statistics of the batch in training() and the running ones else. `known`: the
  // statistics of the batch, if x comes from ag::conv2d_with_stats(). residual and `into` may be undefined.
  Variable forward(const Variable& x, Activation act, const Variable& residual, const Tensor& into,
                   const ops::BatchNormStats& known = {});
  std::string kind() const override { return "BatchNorm2d"; }
  std::string summary() const override { return fmt::format("{}", weight.shape()[0]); }

  double eps = 1e-3;
  double momentum = 0.03;
  Variable weight;  // gamma
  Variable bias;    // beta
  Tensor running_mean, running_var;
  Tensor num_batches_tracked;  // i64 scalar, as the original counts it
  Communicator* ranks = nullptr;  // not null: statistics of a training batch are taken over all of them
  bool recompute = false;         // see ag::BatchNormState
};

// Every batch norm below (recursively) takes its statistics over all ranks, which must run the same layers in the same order.
void synchronize_batch_norm(Module& root, Communicator& ranks);

}  // namespace tessera
