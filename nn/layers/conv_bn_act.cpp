#include "nn/layers/conv_bn_act.h"

#include <atomic>
#include <cmath>

#include "autograd/functions/pointwise.h"
#include "autograd/grad_mode.h"
#include "nn/layers/conv_transpose2d.h"
#include "tensor/base/scope.h"

namespace tessera {

namespace {
std::atomic<bool> plain_path{false};
}

ConvBnAct::ConvBnAct(int64_t in, int64_t out, int64_t kernel, int64_t stride)
    : conv(in, out, kernel, stride, kernel / 2, false), bn(out) {
  child("conv", conv);
  child("bn", bn);
}

void ConvBnAct::use_plain_path(bool on) { plain_path = on; }

Variable ConvBnAct::forward(const Variable& x, const Variable& residual, const Tensor& into) {
  const ScopeGuard scope(this);
  if (folded() && !training() && !grad_enabled()) {
    return Variable(ops::conv2d(x.data(), folded_weight_, folded_bias_, Activation::kSilu,
                                residual.defined() ? residual.data() : Tensor{}, into));
  }
  TESSERA_CHECK(!released_, "a Conv block whose weight was let go of was asked for more than the folded path");
  if (plain_path) {
    const Variable y = ag::silu(bn.forward(conv.forward(x)));
    return residual.defined() ? ag::add(y, residual) : y;
  }
  const bool recorded_evaluation = !training() && grad_enabled();
  if (bn.training() && bn.ranks == nullptr) {
    const auto [y, stats] = conv.forward_with_stats(x, bn.eps, {bn.running_mean, bn.running_var, bn.momentum});
    return bn.forward(y, Activation::kSilu, residual, into, stats);
  }
  return bn.forward(conv.forward(x), Activation::kSilu, residual, recorded_evaluation ? Tensor{} : into);
}

std::pair<Tensor, Tensor> ConvBnAct::folded_weights() const {
  TESSERA_CHECK(!released_, "the weight of a Conv block was let go of");
  // In double on the host, where the weights of a device are fetched for it: this happens once in an evaluation.
  const Tensor w = conv.weight.data();
  const int64_t out = w.size(0), per_out = w.numel() / out;
  const Tensor folded_weight = w.clone().to(Device::cpu()), folded_bias = Tensor::empty({out});
  const auto fetched = [](const Tensor& t) { return t.to(Device::cpu()); };
  const Tensor gains = fetched(bn.weight.data()), shifts = fetched(bn.bias.data());
  const Tensor means = fetched(bn.running_mean), variances = fetched(bn.running_var);
  const float *gamma = gains.data<float>(), *beta = shifts.data<float>();
  const float *mean = means.data<float>(), *var = variances.data<float>();
  float *weight = folded_weight.data<float>(), *bias = folded_bias.data<float>();
  for (int64_t o = 0; o < out; ++o) {
    const double s = double(gamma[o]) / std::sqrt(double(var[o]) + bn.eps);
    for (int64_t i = 0; i < per_out; ++i) weight[o * per_out + i] = float(double(weight[o * per_out + i]) * s);
    bias[o] = float(double(beta[o]) - s * double(mean[o]));
  }
  return {folded_weight, folded_bias};
}

void ConvBnAct::fold(DType type) {
  const auto [weight, bias] = folded_weights();
  const Device device = conv.weight.data().device();
  const ScopeGuard scope(this);  // --conv may name the layer
  folded_weight_ = ops::PackedFilter(weight.to(type).to(device), conv.params);
  folded_bias_ = bias.to(device);
}

void ConvBnAct::unfold() {
  folded_weight_ = {};
  folded_bias_ = {};
}

void ConvBnAct::release_weight() {
  TESSERA_CHECK(folded(), "release_weight() before fold()");
  const Tensor& w = conv.weight.data();
  conv.weight.set_data(Tensor::zeros({1}, w.dtype(), w.device()).expand(w.shape()));
  released_ = true;
}

void fold_batch_norm(Module& root, DType type) {
  root.for_each_module([type](const std::string&, Module& m) {
    if (auto* block = dynamic_cast<ConvBnAct*>(&m)) block->fold(type);
  });
}

void unfold_batch_norm(Module& root) {
  root.for_each_module([](const std::string&, Module& m) {
    if (auto* block = dynamic_cast<ConvBnAct*>(&m)) block->unfold();
  });
}

void recompute_activations(Module& root, bool on) {
  root.for_each_module([on](const std::string&, Module& m) {
    if (auto* block = dynamic_cast<ConvBnAct*>(&m)) block->bn.recompute = on && block->feeds_convolution;
    if (auto* layer = dynamic_cast<ConvTranspose2d*>(&m)) layer->recompute = on && layer->feeds_convolution;
  });
}

}  // namespace tessera
