#include "nn/layers/conv2d.h"

#include "autograd/grad_mode.h"
#include "tensor/base/scope.h"

namespace tessera {

Conv2d::Conv2d(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad, bool with_bias)
    : params{stride, pad}, weight(Tensor::zeros({out, kernel, kernel, in}), true) {
  parameter("weight", weight);
  if (!with_bias) return;
  bias = Variable(Tensor::zeros({out}), true);
  parameter("bias", bias);
}

Variable Conv2d::forward(const Variable& x, const Tensor& into) {
  const ScopeGuard scope(this);
  if (!into.defined()) return ag::conv2d(x, weight, bias, params);
  TESSERA_CHECK(!grad_enabled(), "Conv2d: writing into a slice is for inference only");
  return Variable(ops::conv2d(x.data(), weight.data().to(x.data().dtype()), params, bias.defined() ? bias.data() : Tensor{},
                              Activation::kNone, {}, into));
}

Variable Conv2d::forward_wide(const Variable& x) {
  const ScopeGuard scope(this);
  return ag::conv2d_wide(x, weight, bias, params);
}

ag::ConvWithStats Conv2d::forward_with_stats(const Variable& x, double eps, const ops::RunningStats& running) {
  TESSERA_CHECK(!bias.defined(), "Conv2d: a batch norm's statistics are of a convolution without bias");
  const ScopeGuard scope(this);
  return ag::conv2d_with_stats(x, weight, params, eps, running);
}

std::string Conv2d::summary() const {
  const Shape& w = weight.shape();
  return fmt::format("{} -> {}, {}x{}, stride {}{}", w[3], w[0], w[1], w[2], params.stride, bias.defined() ? ", bias" : "");
}

}  // namespace tessera
