#include "nn/layers/batch_norm2d.h"

namespace tessera {

BatchNorm2d::BatchNorm2d(int64_t channels)
    : weight(Tensor::full({channels}, 1.0), true),
      bias(Tensor::zeros({channels}), true),
      running_mean(Tensor::zeros({channels})),
      running_var(Tensor::full({channels}, 1.0)),
      num_batches_tracked(Tensor::zeros({}, DType::kI64)) {
  parameter("weight", weight);
  parameter("bias", bias);
  buffer("running_mean", running_mean);
  buffer("running_var", running_var);
  buffer("num_batches_tracked", num_batches_tracked);
}

Variable BatchNorm2d::forward(const Variable& x, Activation act, const Variable& residual, const Tensor& into,
                              const ops::BatchNormStats& known) {
  const ag::BatchNormState state{running_mean, running_var, momentum, eps, ranks, recompute};
  if (!training()) return ag::batch_norm_eval(x, weight, bias, state, act, residual, into);
  ++*num_batches_tracked.data<int64_t>();
  return ag::batch_norm_train(x, weight, bias, state, act, residual, into, known);
}

void synchronize_batch_norm(Module& root, Communicator& ranks) {
  root.for_each_module([&](const std::string&, Module& m) {
    if (auto* norm = dynamic_cast<BatchNorm2d*>(&m)) norm->ranks = &ranks;
  });
}

}  // namespace tessera
