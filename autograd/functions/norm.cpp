#include "autograd/functions/norm.h"

#include <cmath>

#include "autograd/engine.h"
#include "autograd/functions/pointwise.h"
#include "tensor/ops/optim.h"

namespace tessera::ag {

namespace {

class BatchNormNode final : public Node {
 public:
  BatchNormNode(const Variable& x, const Variable& gamma, const Variable& beta, const Variable& residual, Tensor mean, Tensor rstd,
                Activation act)
      : Node({Edge(x), Edge(gamma), Edge(beta), Edge(residual)}),
        x_(x.data()),
        mean_(std::move(mean)),
        rstd_(std::move(rstd)),
        gamma_(gamma.data()),
        beta_(beta.data()),
        act_(act) {}
  std::string_view name() const override { return act_ == Activation::kSilu ? "batch_norm_silu" : "batch_norm"; }
  void backward(Grad dy, Engine& engine) override {
    const Tensor* gamma_target = engine.grad_target(inputs[1]);
    const Tensor* beta_target = engine.grad_target(inputs[2]);
    const bool in_place = gamma_target != nullptr && beta_target != nullptr;
    const Tensor dgamma = in_place ? *gamma_target : Tensor::zeros(gamma_.get().shape(), gamma_.get().dtype(), dy.value.device());
    const Tensor dbeta = in_place ? *beta_target : Tensor::zeros(beta_.get().shape(), beta_.get().dtype(), dy.value.device());
    const Tensor dx = ops::batch_norm_backward(x_.get(), dy.value, mean_.get(), rstd_.get(), gamma_.get(), beta_.get(), act_,
                                               dgamma, dbeta, in_place);
    if (!in_place) {
      engine.send(inputs[1], {dgamma, true});
      engine.send(inputs[2], {dbeta, true});
    }
    x_.release();
    engine.send(inputs[3], std::move(dy));
    engine.send(inputs[0], {dx, true});
  }
  void release() override {
    for (Saved* s : {&x_, &mean_, &rstd_, &gamma_, &beta_}) s->release();
  }
  int64_t saved_bytes() const override { return x_.bytes() + mean_.bytes() + rstd_.bytes(); }

 private:
  Saved x_, mean_, rstd_, gamma_, beta_;
  Activation act_;
};

const Tensor& data_or_none(const Variable& v) {
  static const Tensor none;
  return v.defined() ? v.data() : none;
}

}  // namespace

Variable batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, const BatchNormState& state,
                          Activation act, const Variable& residual, const Tensor& into) {
  const ops::BatchNormStats stats = ops::batch_norm_stats(x.data(), state.eps);
  const double count = double(x.data().numel() / x.size(-1));
  ops::lerp(state.running_mean, stats.mean, state.momentum);
  // (1-m) r + m * var * count/(count-1), as two lerps would lose the factor: scale first.
  ops::lerp(state.running_var, count > 1 ? ops::scale(stats.var, count / (count - 1)) : stats.var, state.momentum);
  Tensor y = ops::batch_norm_apply(x.data(), stats.mean, stats.rstd, gamma.data(), beta.data(), act, data_or_none(residual), into);
  if (!needs_grad({&x, &gamma, &beta, &residual})) return Variable::result(std::move(y), nullptr);
  return Variable::result(std::move(y), std::make_shared<BatchNormNode>(x, gamma, beta, residual, stats.mean, stats.rstd, act));
}

Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const BatchNormState& state,
                         Activation act, const Variable& residual, const Tensor& into) {
  // rstd = (var + eps)^-1/2
  const auto number = [&](double v) { return Tensor::full({1}, v, state.running_var.dtype(), state.running_var.device()); };
  const Tensor deviation = ops::unary(UnaryOp::kSqrt, ops::binary(BinaryOp::kAdd, state.running_var, number(state.eps)));
  if (!needs_grad({&x, &gamma, &beta, &residual})) {
    const Tensor rstd = ops::binary(BinaryOp::kDivide, number(1.0), deviation);
    return Variable::result(
        ops::batch_norm_apply(x.data(), state.running_mean, rstd, gamma.data(), beta.data(), act, data_or_none(residual), into),
        nullptr);
  }
  // Rare (frozen layers): composed from plain operations, whose gradients treat the statistics as constants.
  TESSERA_CHECK(!into.defined(), "batch_norm_eval: recording cannot write into a slice");
  const DType type = x.data().dtype();
  Variable z = divide(subtract(cast(x, wide_of(type)), Variable(state.running_mean)), Variable(deviation));
  z = add(multiply(z, gamma), beta);
  if (act == Activation::kSilu) z = silu(z);
  if (residual.defined()) z = add(z, cast(residual, wide_of(type)));
  return cast(z, type);
}

}  // namespace tessera::ag
