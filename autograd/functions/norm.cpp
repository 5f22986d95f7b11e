#include "autograd/functions/norm.h"

#include "autograd/engine.h"
#include "autograd/functions/pointwise.h"

namespace tessera::ag {

namespace {

class BatchNormNode final : public Node {
 public:
  BatchNormNode(const Variable& x, const Variable& gamma, const Variable& beta, const Variable& residual, Tensor mean, Tensor rstd,
                Tensor parts, Activation act, Communicator* ranks, bool recomputable)
      : Node({Edge(x), Edge(gamma), Edge(beta), Edge(residual)}),
        x_(x.data()),
        mean_(std::move(mean)),
        rstd_(std::move(rstd)),
        gamma_(gamma.data()),
        beta_(beta.data()),
        parts_(std::move(parts)),
        act_(act),
        ranks_(ranks),
        recomputable_(recomputable) {}
  std::string_view name() const override { return act_ == Activation::kSilu ? "batch_norm_silu" : "batch_norm"; }
  void backward(Grad dy, Engine& engine) override {
    // One process adds into the leaves' gradients themselves; of several ranks, dx wants the sums of this batch by themselves.
    const Tensor* gamma_target = engine.grad_target(inputs[1]);
    const Tensor* beta_target = engine.grad_target(inputs[2]);
    const bool in_place = gamma_target != nullptr && beta_target != nullptr && ranks_ == nullptr;
    const Tensor sums = in_place ? Tensor() : Tensor::empty({2, mean_.get().numel()}, mean_.get().dtype(), dy.value.device());
    const Tensor dgamma = in_place ? *gamma_target : sums.select(0, 0);
    const Tensor dbeta = in_place ? *beta_target : sums.select(0, 1);
    Tensor dx = ops::batch_norm_backward(x_.get(), dy.value, mean_.get(), rstd_.get(), gamma_.get(), beta_.get(), act_, dgamma,
                                         dbeta, in_place);
    if (ranks_ != nullptr) dx = with_sums_of_all_ranks(dx, sums);
    if (!in_place) {
      engine.send(inputs[1], {dgamma, true});
      engine.send(inputs[2], {dbeta, true});
    }
    x_.release();  // before what the gradients' receivers allocate
    engine.send(inputs[3], std::move(dy));
    engine.send(inputs[0], {dx, true});
  }
  void release() override {
    for (Saved* s : {&x_, &mean_, &rstd_, &gamma_, &beta_}) s->release();
    parts_ = {};
  }
  int64_t saved_bytes() const override { return x_.bytes() + mean_.bytes() + rstd_.bytes(); }
  bool recomputable() const override { return recomputable_; }
  Tensor recompute() const override {
    TESSERA_CHECK(recomputable_, "a batch norm that does not make its result again was asked for it");
    return ops::batch_norm_apply(x_.get(), mean_.get(), rstd_.get(), gamma_.get(), beta_.get(), act_, {}, {});
  }

 private:
  Tensor with_sums_of_all_ranks(const Tensor& dx, const Tensor& sums) {
    const Tensor all = ranks_->all_gather(sums.view({sums.numel()}), "batch norm gradients");
    const auto [slope, offset] = ops::batch_norm_correction(parts_, all, ranks_->rank(), gamma_.get(), rstd_.get());
    return ops::batch_norm_apply(x_.get(), mean_.get(), rstd_.get(), slope, offset, Activation::kNone, dx);
  }

  Saved x_, mean_, rstd_, gamma_, beta_;
  Tensor parts_;  // of all ranks
  Activation act_;
  Communicator* ranks_;
  bool recomputable_;
};

const Tensor& data_or_none(const Variable& v) {
  static const Tensor none;
  return v.defined() ? v.data() : none;
}

}  // namespace

Variable batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, const BatchNormState& state,
                          Activation act, const Variable& residual, const Tensor& into, const ops::BatchNormStats& known) {
  const ops::RunningStats running{state.running_mean, state.running_var, state.momentum};
  Tensor parts;
  ops::BatchNormStats stats = known;
  if (state.ranks != nullptr) {
    TESSERA_CHECK(!known.mean.defined(), "batch_norm_train: got one rank's statistics where those of all are wanted");
    parts = state.ranks->all_gather(ops::batch_norm_part(x.data()), "batch norm statistics");
    stats = ops::batch_norm_join(parts, wide_of(x.data().dtype()), state.eps, running);
  } else if (!known.mean.defined()) {
    stats = ops::batch_norm_stats(x.data(), state.eps, running);
  }
  Tensor y = ops::batch_norm_apply(x.data(), stats.mean, stats.rstd, gamma.data(), beta.data(), act, data_or_none(residual), into);
  if (!needs_grad({&x, &gamma, &beta, &residual})) return Variable::result(std::move(y), nullptr);
  return Variable::result(std::move(y),
                          std::make_shared<BatchNormNode>(x, gamma, beta, residual, stats.mean, stats.rstd, parts, act, state.ranks,
                                                          state.recompute && !residual.defined() && !into.defined()));
}

Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const BatchNormState& state,
                         Activation act, const Variable& residual, const Tensor& into) {
  const Tensor rstd = ops::batch_norm_rstd(state.running_var, state.eps);
  if (!needs_grad({&x, &gamma, &beta, &residual})) {
    return Variable::result(
        ops::batch_norm_apply(x.data(), state.running_mean, rstd, gamma.data(), beta.data(), act, data_or_none(residual), into),
        nullptr);
  }
  // Rare (frozen layers): composed from plain operations, whose gradients treat the statistics as constants.
  TESSERA_CHECK(!into.defined(), "batch_norm_eval: recording cannot write into a slice");
  const DType type = x.data().dtype();
  Variable z = multiply(subtract(cast(x, wide_of(type)), Variable(state.running_mean)), Variable(rstd));
  z = add(multiply(z, gamma), beta);
  if (act == Activation::kSilu) z = silu(z);
  if (residual.defined()) z = add(z, cast(residual, wide_of(type)));
  return cast(z, type);
}

}  // namespace tessera::ag
