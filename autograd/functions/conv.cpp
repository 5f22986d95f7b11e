#include "autograd/functions/conv.h"

#include "autograd/engine.h"
#include "autograd/functions/pointwise.h"
#include "tensor/backend.h"
#include "tensor/beside.h"

namespace tessera::ag {

namespace {

// Adds to the leaf's gradient in place when it exists, beside what comes after, else sends a fresh one. compute(target, accumulate).
template <class Compute>
void weight_gradient(Engine& engine, const Edge& edge, const Tensor& dy, Compute compute) {
  if (!edge) return;
  if (const Tensor* target = engine.grad_target_beside(edge)) {
    const BesideGuard guard;
    return compute(*target, true);
  }
  Tensor fresh = Tensor::empty(edge.shape, wide_of(dy.dtype()), dy.device());
  compute(fresh, false);
  engine.send(edge, {fresh, true});
}

const Tensor& data_or_none(const Variable& v) {
  static const Tensor none;
  return v.defined() ? v.data() : none;
}

class ConvNode final : public Node {
 public:
  ConvNode(const Variable& x, const Variable& w, const Tensor& rounded_w, const Variable& bias, const ConvParams& p)
      : Node({Edge(x), Edge(w), Edge(bias)}), x_(x), w_(rounded_w), p_(p) {}
  std::string_view name() const override { return "conv2d"; }
  DType gradient_type(DType) const override { return w_.get().dtype(); }
  void backward(Grad dy, Engine& engine) override {
    weight_gradient(engine, inputs[2], dy.value, [&](const Tensor& t, bool acc) { ops::bias_backward(dy.value, t, acc); });
    if (w_.get().dtype() != dy.value.dtype()) dy = {dy.value.to(w_.get().dtype()), true};  // of a wide result
    weight_gradient(engine, inputs[1], dy.value,
                    [&](const Tensor& t, bool acc) { ops::conv2d_backward_weight(x_.get(inputs[0]), dy.value, t, p_, acc); });
    const Shape x_shape = inputs[0].shape;
    x_.release();  // before dx is allocated
    engine.send_or_add(inputs[0], [&](const Tensor& into, bool add) {
      return ops::conv2d_backward_data(dy.value, w_.get(), x_shape, p_, into, add);
    });
  }
  void release() override {
    x_.release();
    w_.release();
  }
  int64_t saved_bytes() const override { return x_.bytes() + w_.bytes(); }

 private:
  SavedInput x_;
  Saved w_;
  ConvParams p_;
};

class ConvTransposeNode final : public Node {
 public:
  ConvTransposeNode(const Variable& x, const Variable& w, const Tensor& rounded_w, const Variable& bias, bool recomputable)
      : Node({Edge(x), Edge(w), Edge(bias)}), x_(x), w_(rounded_w), bias_(data_or_none(bias)), recomputable_(recomputable) {}
  std::string_view name() const override { return "conv_transpose2x2"; }
  void backward(Grad dy, Engine& engine) override {
    weight_gradient(engine, inputs[2], dy.value, [&](const Tensor& t, bool acc) { ops::bias_backward(dy.value, t, acc); });
    weight_gradient(engine, inputs[1], dy.value,
                    [&](const Tensor& t, bool acc) { ops::conv_transpose2x2_backward_weight(x_.get(inputs[0]), dy.value, t, acc); });
    if (inputs[0]) engine.send(inputs[0], {ops::conv_transpose2x2_backward_data(dy.value, w_.get()), true});
  }
  bool recomputable() const override { return recomputable_; }
  Tensor recompute() const override {
    return ops::conv_transpose2x2(x_.get(inputs[0]), w_.get(), bias_.defined() ? bias_.get() : Tensor{});
  }
  void release() override {
    x_.release();
    w_.release();
    bias_.release();
  }
  int64_t saved_bytes() const override { return x_.bytes() + w_.bytes() + bias_.bytes(); }

 private:
  SavedInput x_;
  Saved w_, bias_;
  bool recomputable_;
};

// The filter in the type of x: itself, or rounded where f32 masters meet 16-bit activations.
Tensor filter_for(const Variable& x, const Variable& w) {
  const DType type = x.data().dtype();
  return w.rounded().defined() && w.rounded().dtype() == type ? w.rounded() : w.data().to(type);
}

}  // namespace

Variable conv2d(const Variable& x, const Variable& w, const Variable& bias, const ConvParams& p) {
  const Tensor filter = filter_for(x, w);
  Tensor y = ops::conv2d(x.data(), filter, p, data_or_none(bias));
  return Variable::result(std::move(y), needs_grad({&x, &w, &bias}) ? std::make_shared<ConvNode>(x, w, filter, bias, p) : nullptr);
}

Variable conv2d_wide(const Variable& x, const Variable& w, const Variable& bias, const ConvParams& p) {
  const DType wide = wide_of(x.data().dtype());
  if (wide == x.data().dtype() || !backend_for(x.data().device()).conv2d_writes_wide()) return conv2d(cast(x, wide), w, bias, p);
  const Tensor filter = filter_for(x, w);
  Tensor y = ops::conv2d_wide(x.data(), filter, p, data_or_none(bias));
  return Variable::result(std::move(y), needs_grad({&x, &w, &bias}) ? std::make_shared<ConvNode>(x, w, filter, bias, p) : nullptr);
}

ConvWithStats conv2d_with_stats(const Variable& x, const Variable& w, const ConvParams& p, double eps,
                                const ops::RunningStats& running) {
  if (!backend_for(x.data().device()).joins_conv2d_and_stats()) return {conv2d(x, w, {}, p), {}};
  const Tensor filter = filter_for(x, w);
  ops::ConvWithStats r = ops::conv2d_with_stats(x.data(), filter, p, eps, running);
  return {
      Variable::result(std::move(r.y), needs_grad({&x, &w}) ? std::make_shared<ConvNode>(x, w, filter, Variable(), p) : nullptr),
      std::move(r.stats)};
}

Variable conv_transpose2x2(const Variable& x, const Variable& w, const Variable& bias, bool recompute) {
  const Tensor filter = filter_for(x, w);
  Tensor y = ops::conv_transpose2x2(x.data(), filter, data_or_none(bias));
  return Variable::result(std::move(y),
                          needs_grad({&x, &w, &bias}) ? std::make_shared<ConvTransposeNode>(x, w, filter, bias, recompute) : nullptr);
}

}  // namespace tessera::ag
