#include "autograd/functions/norm.h"

#include <cmath>

#include "autograd/engine.h"
#include "autograd/functions/pointwise.h"
#include "tensor/ops/optim.h"

namespace tessera::ag {

namespace {

Tensor from_doubles(const std::vector<double>& values, const Tensor& like) {
  return Tensor::from_vector(values, {int64_t(values.size())}).to(like.dtype()).to(like.device());
}

std::vector<double> doubles(const Tensor& t) { return t.to(Device::cpu()).to(DType::kF64).to_vector<double>(); }

// Of every rank, in rank order: its number of rows, then `first` and `second`, one value for each channel.
std::vector<std::vector<double>> of_all_ranks(Communicator& ranks, double rows, const Tensor& first, const Tensor& second,
                                              const char* what) {
  std::vector<double> mine = {rows};
  for (const Tensor* t : {&first, &second}) {
    const std::vector<double> v = doubles(*t);
    mine.insert(mine.end(), v.begin(), v.end());
  }
  std::vector<double> all(mine.size() * size_t(ranks.size()));
  ranks.all_gather(mine.data(), int64_t(mine.size() * sizeof(double)), all.data(), what);
  std::vector<std::vector<double>> parts;
  for (size_t at = 0; at < all.size(); at += mine.size()) {
    parts.emplace_back(all.begin() + ptrdiff_t(at), all.begin() + ptrdiff_t(at + mine.size()));
  }
  return parts;
}

// Mean and variance of the rows of all ranks from those of each: no sums of squares, so nothing cancels. `rows` becomes their
// number.
ops::BatchNormStats joined(const ops::BatchNormStats& own, double& rows, double eps, Communicator& ranks) {
  const auto parts = of_all_ranks(ranks, rows, own.mean, own.var, "batch norm statistics");
  const size_t channels = size_t(own.mean.numel());
  std::vector<double> mean(channels), var(channels), rstd(channels);
  rows = 0;
  for (const auto& p : parts) rows += p[0];
  for (size_t c = 0; c < channels; ++c) {
    for (const auto& p : parts) mean[c] += p[0] / rows * p[1 + c];
    for (const auto& p : parts) {
      const double off = p[1 + c] - mean[c];
      var[c] += p[0] / rows * (p[1 + channels + c] + off * off);
    }
    rstd[c] = 1 / std::sqrt(var[c] + eps);
  }
  return {from_doubles(mean, own.mean), from_doubles(var, own.mean), from_doubles(rstd, own.mean)};
}

class BatchNormNode final : public Node {
 public:
  BatchNormNode(const Variable& x, const Variable& gamma, const Variable& beta, const Variable& residual, Tensor mean, Tensor rstd,
                Activation act, Communicator* ranks, bool recomputable)
      : Node({Edge(x), Edge(gamma), Edge(beta), Edge(residual)}),
        x_(x.data()),
        mean_(std::move(mean)),
        rstd_(std::move(rstd)),
        gamma_(gamma.data()),
        beta_(beta.data()),
        act_(act),
        ranks_(ranks),
        recomputable_(recomputable) {}
  std::string_view name() const override { return act_ == Activation::kSilu ? "batch_norm_silu" : "batch_norm"; }
  void backward(Grad dy, Engine& engine) override {
    const Tensor* gamma_target = engine.grad_target(inputs[1]);
    const Tensor* beta_target = engine.grad_target(inputs[2]);
    const bool in_place = gamma_target != nullptr && beta_target != nullptr && ranks_ == nullptr;
    const Tensor dgamma = in_place ? *gamma_target : Tensor::zeros(gamma_.get().shape(), gamma_.get().dtype(), dy.value.device());
    const Tensor dbeta = in_place ? *beta_target : Tensor::zeros(beta_.get().shape(), beta_.get().dtype(), dy.value.device());
    Tensor dx = ops::batch_norm_backward(x_.get(), dy.value, mean_.get(), rstd_.get(), gamma_.get(), beta_.get(), act_, dgamma,
                                         dbeta, in_place);
    if (ranks_ != nullptr) dx = with_sums_of_all_ranks(dx, dgamma, dbeta);
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
  bool recomputable() const override { return recomputable_; }
  Tensor recompute() const override {
    TESSERA_CHECK(recomputable_, "a batch norm with a residual sum was asked for its result again");
    return ops::batch_norm_apply(x_.get(), mean_.get(), rstd_.get(), gamma_.get(), beta_.get(), act_, {}, {});
  }

 private:
  // dx = gamma * rstd * (dz - (dbeta + xhat * dgamma) / rows) with the sums of this rank is put right by what is affine in xhat:
  // + gamma * rstd * (dbeta / rows - DBETA / ROWS) + xhat * gamma * rstd * (dgamma / rows - DGAMMA / ROWS), capitals: over all
  // ranks.
  Tensor with_sums_of_all_ranks(const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) {
    const Tensor& x = x_.get();
    const size_t channels = size_t(dgamma.numel());
    const double own_rows = double(x.numel() / x.size(-1));
    const auto parts = of_all_ranks(*ranks_, own_rows, dgamma, dbeta, "batch norm gradients");
    const std::vector<double> gamma = doubles(gamma_.get()), rstd = doubles(rstd_.get());
    const std::vector<double>& own = parts[size_t(ranks_->rank())];
    std::vector<double> slope(channels), offset(channels);
    double rows = 0;
    for (const auto& p : parts) rows += p[0];
    for (size_t c = 0; c < channels; ++c) {
      double all_dgamma = 0, all_dbeta = 0;
      for (const auto& p : parts) all_dgamma += p[1 + c], all_dbeta += p[1 + channels + c];
      slope[c] = gamma[c] * rstd[c] * (own[1 + c] / own_rows - all_dgamma / rows);
      offset[c] = gamma[c] * rstd[c] * (own[1 + channels + c] / own_rows - all_dbeta / rows);
    }
    return ops::batch_norm_apply(x, mean_.get(), rstd_.get(), from_doubles(slope, mean_.get()), from_doubles(offset, mean_.get()),
                                 Activation::kNone, dx);
  }

  Saved x_, mean_, rstd_, gamma_, beta_;
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
                          Activation act, const Variable& residual, const Tensor& into) {
  ops::BatchNormStats stats = ops::batch_norm_stats(x.data(), state.eps);
  double count = double(x.data().numel() / x.size(-1));
  if (state.ranks != nullptr) stats = joined(stats, count, state.eps, *state.ranks);
  ops::lerp(state.running_mean, stats.mean, state.momentum);
  // (1-m) r + m * var * count/(count-1), as two lerps would lose the factor: scale first.
  ops::lerp(state.running_var, count > 1 ? ops::scale(stats.var, count / (count - 1)) : stats.var, state.momentum);
  Tensor y = ops::batch_norm_apply(x.data(), stats.mean, stats.rstd, gamma.data(), beta.data(), act, data_or_none(residual), into);
  if (!needs_grad({&x, &gamma, &beta, &residual})) return Variable::result(std::move(y), nullptr);
  return Variable::result(std::move(y),
                          std::make_shared<BatchNormNode>(x, gamma, beta, residual, stats.mean, stats.rstd, act, state.ranks,
                                                          state.recompute && !residual.defined() && !into.defined()));
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
