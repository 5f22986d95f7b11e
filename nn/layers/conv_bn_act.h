// Conv block: convolution without bias, batch normalisation, SiLU (spec 1.3). Three paths that a test holds equal:
//   plain   conv2d, batch_norm, silu as three recorded operations: the teaching path (use_plain_path(true))
//   fused   conv2d, then normalise + SiLU (+ residual) in one pass that keeps the convolution's output only
//   folded  inference: the normalisation inside the weights, SiLU and residual in the convolution's epilogue (spec 1.9)
#pragma once

#include <utility>

#include "nn/layers/batch_norm2d.h"
#include "nn/layers/conv2d.h"

namespace tessera {

class ConvBnAct : public UnaryModule {
 public:
  // pad = kernel / 2.
  ConvBnAct(int64_t in, int64_t out, int64_t kernel = 1, int64_t stride = 1);
  Variable forward(const Variable& x, const Tensor& into = {}) override { return forward(x, {}, into); }
  // SiLU(bn(conv(x))) + residual; residual may be undefined. `into` is an offer: the fused and the folded path write the result
  // there, the plain path and an evaluation that is recorded return a tensor of their own.
  Variable forward(const Variable& x, const Variable& residual, const Tensor& into);
  std::string kind() const override { return "Conv"; }
  std::string summary() const override { return conv.summary(); }

  // Makes (or drops) the folded weights, of the type in which the network computes. They are right as long as parameters and
  // statistics do not change. The folded bias is f32.
  void fold(DType type = DType::kF32);
  void unfold();
  bool folded() const { return folded_weight_.defined(); }
  // Weight (O, k, k, I) and bias (O) of the convolution with the normalisation inside (spec 1.9), f32 on the host.
  std::pair<Tensor, Tensor> folded_weights() const;
  // Frees the memory of the convolution's weight, whose shape stays. From here on the folded path is the only one.
  void release_weight();

  static void use_plain_path(bool on);  // for tests and teaching; affects all blocks

  Conv2d conv;
  BatchNorm2d bn;
  bool feeds_convolution = false;  // a single convolution reads the result, and nothing else does; set by the owner of the block

 private:
  ops::PackedFilter folded_weight_;
  Tensor folded_bias_;
  bool released_ = false;
};

// Folds every Conv block below (recursively); validation and prediction run the folded network.
void fold_batch_norm(Module& root, DType type = DType::kF32);
void unfold_batch_norm(Module& root);

// For every Conv block below whose result feeds one convolution: a training step keeps only the output of the block's convolution,
// and normalises it once more for the weight gradient of the convolution that reads the result. Of a transposed convolution that
// feeds one only the input is kept. That saves memory for one pass more; the results have the same bits (ADR 11).
void recompute_activations(Module& root, bool on);

}  // namespace tessera
