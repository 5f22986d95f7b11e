#include "autograd/functions/norm.h"

#include <cmath>

#include "autograd/engine.h"
#include "autograd/functions/pointwise.h"
#include "tensor/ops/optim.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/reduce.h"

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

struct JoinedStats {
  ops::BatchNormStats stats;
  Tensor unbiased;  // variance
};

Tensor unbiased(const Tensor& var, double rows) { return rows > 1 ? ops::scale(var, rows / (rows - 1)) : var; }

// Mean and variance of the rows of all ranks from those of each: no sums of squares, so nothing cancels.
JoinedStats joined(const ops::BatchNormStats& own, double own_rows, double eps, Communicator& ranks) {
  const auto parts = of_all_ranks(ranks, own_rows, own.mean, own.var, "batch norm statistics");
  const size_t channels = size_t(own.mean.numel());
  std::vector<double> mean(channels), var(channels), rstd(channels);
  double rows = 0;
  for (const auto& p : parts) rows += p[0];
  for (size_t c = 0; c < channels; ++c) {
    for (const auto& p : parts) mean[c] += p[0] / rows * p[1 + c];
    for (const auto& p : parts) {
      const double off = p[1 + c] - mean[c];
      var[c] += p[0] / rows * (p[1 + channels + c] + off * off);
    }
    rstd[c] = 1 / std::sqrt(var[c] + eps);
  }
  const ops::BatchNormStats stats{from_doubles(mean, own.mean), from_doubles(var, own.mean), from_doubles(rstd, own.mean)};
  return {stats, unbiased(stats.var, rows)};
}

// --- both exchanges once more, as calls of the device's stream

Tensor number_like(const Tensor& t, double v) { return Tensor::full({1}, v, t.dtype(), t.device()); }

struct PartsInStream {
  Tensor own;             // (2, C): first, second
  Tensor rows, all_rows;  // (R, 1) of every rank; (1, 1)
  Tensor first, second;   // (R, C)
};

PartsInStream of_all_ranks_in_stream(Communicator& ranks, double rows, const Tensor& first, const Tensor& second,
                                     const char* what) {
  const int64_t channels = first.numel();
  const Tensor own = Tensor::empty({1 + 2 * channels}, first.dtype(), first.device());
  own.narrow(0, 0, 1).fill(rows);
  own.narrow(0, 1, channels).copy_from(first);
  own.narrow(0, 1 + channels, channels).copy_from(second);
  const Tensor all = ranks.all_gather(own, what);
  PartsInStream p;
  p.own = own.narrow(0, 1, 2 * channels).view({2, channels});
  p.rows = all.narrow(1, 0, 1);
  p.all_rows = ops::reduce(ReduceOp::kSum, p.rows, {0}, true);
  p.first = all.narrow(1, 1, channels);
  p.second = all.narrow(1, 1 + channels, channels);
  return p;
}

JoinedStats joined_in_stream(const ops::BatchNormStats& own, double own_rows, double eps, Communicator& ranks) {
  const PartsInStream p = of_all_ranks_in_stream(ranks, own_rows, own.mean, own.var, "batch norm statistics");
  const Tensor share = ops::binary(BinaryOp::kDivide, p.rows, p.all_rows);
  const auto average = [&](const Tensor& parts) {
    return ops::reduce(ReduceOp::kSum, ops::binary(BinaryOp::kMultiply, share, parts), {0});
  };
  ops::BatchNormStats s;
  s.mean = average(p.first);
  const Tensor off = ops::binary(BinaryOp::kSubtract, p.first, s.mean);
  s.var = average(ops::binary(BinaryOp::kAdd, p.second, ops::binary(BinaryOp::kMultiply, off, off)));
  const Tensor deviation = ops::unary(UnaryOp::kSqrt, ops::binary(BinaryOp::kAdd, s.var, number_like(s.var, eps)));
  const Tensor one = number_like(s.var, 1);
  s.rstd = ops::binary(BinaryOp::kDivide, one, deviation);
  const Tensor all_rows = p.all_rows.view({1});
  const Tensor degrees = ops::binary(BinaryOp::kMaximum, ops::binary(BinaryOp::kSubtract, all_rows, one), one);
  return {s, ops::binary(BinaryOp::kMultiply, s.var, ops::binary(BinaryOp::kDivide, all_rows, degrees))};
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
    TESSERA_CHECK(recomputable_, "a batch norm that does not make its result again was asked for it");
    return ops::batch_norm_apply(x_.get(), mean_.get(), rstd_.get(), gamma_.get(), beta_.get(), act_, {}, {});
  }

 private:
  // dx = gamma * rstd * (dz - (dbeta + xhat * dgamma) / rows) with the sums of this rank is put right by what is affine in xhat:
  // + gamma * rstd * (dbeta / rows - DBETA / ROWS) + xhat * gamma * rstd * (dgamma / rows - DGAMMA / ROWS), capitals: over all
  // ranks.
  Tensor with_sums_of_all_ranks(const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta) {
    const Tensor& x = x_.get();
    const double own_rows = double(x.numel() / x.size(-1));
    const auto [slope, offset] =
        ranks_->in_stream(x.device()) ? corrections_in_stream(own_rows, dgamma, dbeta) : corrections(own_rows, dgamma, dbeta);
    return ops::batch_norm_apply(x, mean_.get(), rstd_.get(), slope, offset, Activation::kNone, dx);
  }
  std::pair<Tensor, Tensor> corrections(double own_rows, const Tensor& dgamma, const Tensor& dbeta) {
    const size_t channels = size_t(dgamma.numel());
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
    return {from_doubles(slope, mean_.get()), from_doubles(offset, mean_.get())};
  }
  std::pair<Tensor, Tensor> corrections_in_stream(double own_rows, const Tensor& dgamma, const Tensor& dbeta) {
    const PartsInStream p = of_all_ranks_in_stream(*ranks_, own_rows, dgamma, dbeta, "batch norm gradients");
    const auto mean_of_all = [&](const Tensor& parts) {
      return ops::binary(BinaryOp::kDivide, ops::reduce(ReduceOp::kSum, parts, {0}), p.all_rows.view({1}));
    };
    const Tensor factor = ops::binary(BinaryOp::kMultiply, gamma_.get(), rstd_.get());
    const auto correction = [&](int64_t row, const Tensor& parts) {
      const Tensor own_mean = ops::scale(p.own.select(0, row), 1 / own_rows);
      return ops::binary(BinaryOp::kMultiply, factor, ops::binary(BinaryOp::kSubtract, own_mean, mean_of_all(parts)));
    };
    return {correction(0, p.first), correction(1, p.second)};
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
  const double rows = double(x.data().numel() / x.size(-1));
  Tensor running;
  if (state.ranks == nullptr) {
    running = unbiased(stats.var, rows);
  } else {
    const auto join = state.ranks->in_stream(x.data().device()) ? joined_in_stream : joined;
    JoinedStats all = join(stats, rows, state.eps, *state.ranks);
    stats = std::move(all.stats), running = std::move(all.unbiased);
  }
  ops::lerp(state.running_mean, stats.mean, state.momentum);
  // (1-m) r + m * var * rows/(rows-1), as two lerps would lose the factor: scale first.
  ops::lerp(state.running_var, running, state.momentum);
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
