#include "nn/layers/conv_transpose2d.h"

#include "autograd/functions/conv.h"
#include "tensor/base/scope.h"

namespace tessera {

ConvTranspose2d::ConvTranspose2d(int64_t in, int64_t out)
    : weight(Tensor::zeros({out, 2, 2, in}), true), bias(Tensor::zeros({out}), true) {
  parameter("weight", weight);
  parameter("bias", bias);
}

Variable ConvTranspose2d::forward(const Variable& x, const Tensor& into) {
  const ScopeGuard scope(this);
  TESSERA_CHECK(!into.defined(), "ConvTranspose2d cannot write into a slice");
  return ag::conv_transpose2x2(x, weight, bias, recompute);
}

std::string ConvTranspose2d::summary() const {
  return fmt::format("{} -> {}, 2x2, stride 2, bias", weight.shape()[3], weight.shape()[0]);
}

}  // namespace tessera
