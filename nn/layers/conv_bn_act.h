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
  // act(bn(conv(x))) + residual. `into` is an offer: the fused and the folded path write there, the plain path and recorded
  // evaluation return a tensor of their own.
  Variable forward(const Variable& x, const Variable& residual, const Tensor& into);
  std::string kind() const override { return "Conv"; }
  std::string summary() const override { return conv.summary(); }

  // Prepares (or drops) the folded weights, of the type in which the network computes; they hold as long as parameters and
  // statistics do not change. The folded bias is f32 (or f64).
  void fold(DType type = DType::kF32);
  void unfold();
  bool folded() const { return folded_weight_.defined(); }
  // Weight (O, k, k, I) and bias (O) of the convolution with the normalisation inside (spec 1.9), f32 on the host.
  std::pair<Tensor, Tensor> folded_weights() const;
  // Lets go of the convolution's weight (of its memory; the shape stays): from here on there is the folded path and no other.
  void release_weight();

  static void use_plain_path(bool on);  // for tests and teaching; affects all blocks

  Conv2d conv;
  BatchNorm2d bn;
  bool feeds_convolution = false;  // one convolution and nothing else reads the result; set by the owner, who knows

 private:
  ops::PackedFilter folded_weight_;
  Tensor folded_bias_;
  bool released_ = false;
};

// Folds every Conv block below (recursively); validation and prediction run the folded network.
void fold_batch_norm(Module& root, DType type = DType::kF32);
void unfold_batch_norm(Module& root);

// Of every Conv block below whose result feeds a convolution: a training step keeps the convolution's output only and normalises it
// once more for the gradient of the weights that read it; of a transposed convolution that feeds one, nothing but the input is kept.
// Less memory for one pass more; not a bit changes.
void recompute_activations(Module& root, bool on);

}  // namespace tessera
