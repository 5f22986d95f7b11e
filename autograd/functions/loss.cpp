#include "autograd/functions/loss.h"

#include "autograd/engine.h"
#include "autograd/functions/pointwise.h"
#include "tensor/backend.h"

namespace tessera::ag {

namespace {

class BceNode final : public Node {
 public:
  BceNode(const Variable& x, const Tensor& target) : Node({Edge(x)}), x_(x.data()), target_(target) {}
  std::string_view name() const override { return "bce_with_logits"; }
  void backward(Grad dy, Engine& engine) override {
    const Tensor dx = Tensor::empty(inputs[0].shape, x_.get().dtype(), x_.get().device());
    ops::bce_with_logits_backward(x_.get(), target_.get(), dy.value, dx, false);
    engine.send(inputs[0], {dx, true});
  }
  void release() override {
    x_.release();
    target_.release();
  }
  int64_t saved_bytes() const override { return x_.bytes() + target_.bytes(); }

 private:
  Saved x_, target_;
};

std::vector<Edge> edges_of(std::span<const Variable> maps) {
  std::vector<Edge> edges;
  for (const Variable& v : maps) edges.emplace_back(v);
  return edges;
}

class LabelledBceNode final : public Node {
 public:
  LabelledBceNode(std::span<const Variable> x, const Tensor& label, const Tensor& score)
      : Node(edges_of(x)), label_(label), score_(score) {
    for (const Variable& v : x) x_.emplace_back(v.data());
  }
  std::string_view name() const override { return "bce_with_labels"; }
  void backward(Grad dy, Engine& engine) override {
    std::vector<Tensor> x;
    for (const Saved& s : x_) x.push_back(s.get());
    const DType type = backend_for(dy.value.device()).losses_take_narrow() ? gradient_type_of(inputs, x[0].dtype()) : x[0].dtype();
    const std::vector<Tensor> dx = ops::bce_with_labels_backward(x, label_.get(), score_.get(), dy.value, type);
    for (size_t m = 0; m < inputs.size(); ++m) engine.send(inputs[m], {dx[m], true});
  }
  void release() override {
    x_.clear();
    label_.release();
    score_.release();
  }
  int64_t saved_bytes() const override {
    int64_t bytes = label_.bytes() + score_.bytes();
    for (const Saved& s : x_) bytes += s.bytes();
    return bytes;
  }

 private:
  std::vector<Saved> x_;
  Saved label_, score_;
};

// CIoU and DFL: a prediction, a target and a weight for each row.
class RowLossNode final : public Node {
 public:
  using Backward = Tensor (*)(const Tensor& x, const Tensor& target, const Tensor& weight, const Tensor& scale);
  RowLossNode(std::string_view title, Backward rule, const Variable& x, const Tensor& target, const Tensor& weight)
      : Node({Edge(x)}), name_(title), rule_(rule), x_(x.data()), target_(target), weight_(weight) {}
  std::string_view name() const override { return name_; }
  void backward(Grad dy, Engine& engine) override {
    engine.send(inputs[0], {rule_(x_.get(), target_.get(), weight_.get(), dy.value), true});
  }
  void release() override {
    x_.release();
    target_.release();
    weight_.release();
  }
  int64_t saved_bytes() const override { return x_.bytes() + target_.bytes() + weight_.bytes(); }

 private:
  std::string_view name_;
  Backward rule_;
  Saved x_, target_, weight_;
};

MaskLossItems items_of(const MaskLossTargets& t) {
  for (const Tensor* x : {&t.image, &t.target, &t.boxes, &t.area}) {
    TESSERA_CHECK(x->is_dense() && x->size(0) == t.image.numel() && x->device() == t.image.device(),
                  "mask_loss: got targets of {} where there are {} images", describe(*x), t.image.numel());
  }
  return {t.image.numel(), t.image.data<int32_t>(), t.target.data<int32_t>(), t.boxes.data<float>(), t.area.data<float>(), t.overlap};
}

class MaskLossNode final : public Node {
 public:
  MaskLossNode(const Variable& coefficients, const Variable& prototypes, const Tensor& masks, MaskLossTargets targets)
      : Node({Edge(coefficients), Edge(prototypes)}),
        coefficients_(coefficients.data()),
        prototypes_(prototypes.data()),
        masks_(masks),
        targets_(std::move(targets)) {}
  std::string_view name() const override { return "mask_loss"; }
  void backward(Grad dy, Engine& engine) override {
    const Tensor &c = coefficients_.get(), &p = prototypes_.get();
    const Tensor dc = Tensor::empty(c.shape(), c.dtype(), c.device());
    const Tensor dp = Tensor::empty(p.shape(), p.dtype(), p.device());
    ops::mask_loss_backward(c, p, masks_.get(), items_of(targets_), dy.value, dc, dp);
    engine.send(inputs[0], {dc, true});
    engine.send(inputs[1], {dp, true});
  }
  void release() override {
    for (Saved* s : {&coefficients_, &prototypes_, &masks_}) s->release();
    targets_ = {};
  }
  int64_t saved_bytes() const override { return coefficients_.bytes() + prototypes_.bytes() + masks_.bytes(); }

 private:
  Saved coefficients_, prototypes_, masks_;
  MaskLossTargets targets_;
};

}  // namespace

Variable bce_with_logits(const Variable& x, const Tensor& target) {
  return Variable::result(ops::bce_with_logits(x.data(), target), needs_grad({&x}) ? std::make_shared<BceNode>(x, target) : nullptr);
}

Variable bce_with_labels(std::span<const Variable> x, const Tensor& label, const Tensor& score, const Tensor& into) {
  std::vector<Tensor> data;
  bool record = false;
  for (const Variable& v : x) {
    data.push_back(v.data());
    record = record || needs_grad({&v});
  }
  return Variable::result(ops::bce_with_labels(data, label, score, into),
                          record ? std::make_shared<LabelledBceNode>(x, label, score) : nullptr);
}

Variable ciou_loss(const Variable& boxes, const Tensor& target, const Tensor& weight, const Tensor& into) {
  return Variable::result(ops::ciou_loss(boxes.data(), target, weight, {}, into), needs_grad({&boxes}) ? std::make_shared<RowLossNode>(
                              "ciou_loss", &ops::ciou_loss_backward, boxes, target, weight) : nullptr);
}

Variable dfl_loss(const Variable& logits, const Tensor& target, const Tensor& weight, const Tensor& into) {
  return Variable::result(ops::dfl_loss(logits.data(), target, weight, into), needs_grad({&logits}) ? std::make_shared<RowLossNode>(
                              "dfl_loss", &ops::dfl_loss_backward, logits, target, weight) : nullptr);
}

Variable mask_loss(const Variable& coefficients, const Variable& any_prototypes, const Tensor& masks, const MaskLossTargets& targets,
                   const Tensor& into) {
  const DType type = any_prototypes.data().dtype();
  const bool as_they_are = backend_for(any_prototypes.data().device()).losses_take_narrow();
  const Variable prototypes = cast(any_prototypes, as_they_are ? type : wide_of(type));
  const bool record = needs_grad({&coefficients, &prototypes});
  return Variable::result(ops::mask_loss(coefficients.data(), prototypes.data(), masks, items_of(targets), into),
                          record ? std::make_shared<MaskLossNode>(coefficients, prototypes, masks, targets) : nullptr);
}

}  // namespace tessera::ag
