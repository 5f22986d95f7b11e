#include "autograd/functions/loss.h"

#include "autograd/engine.h"

namespace tessera::ag {

namespace {

class BceNode final : public Node {
 public:
  BceNode(const Variable& x, const Tensor& target) : Node({Edge(x)}), x_(x.data()), target_(target) {}
  std::string_view name() const override { return "bce_with_logits"; }
  void backward(Grad dy, Engine& engine) override {
    const Tensor dx = Tensor::empty(inputs[0].shape, x_.get().dtype(), x_.get().device());
    ops::bce_with_logits_backward(x_.get(), target_.get(), dy.value.item(), dx, false);
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

// CIoU and DFL: a prediction, a target and a weight for each row.
class RowLossNode final : public Node {
 public:
  using Backward = Tensor (*)(const Tensor& x, const Tensor& target, const Tensor& weight, double scale);
  RowLossNode(std::string_view title, Backward rule, const Variable& x, const Tensor& target, const Tensor& weight)
      : Node({Edge(x)}), name_(title), rule_(rule), x_(x.data()), target_(target), weight_(weight) {}
  std::string_view name() const override { return name_; }
  void backward(Grad dy, Engine& engine) override {
    engine.send(inputs[0], {rule_(x_.get(), target_.get(), weight_.get(), dy.value.item()), true});
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

// Targets where the kernels read them.
class PlacedTargets {
 public:
  PlacedTargets() = default;
  PlacedTargets(std::shared_ptr<const MaskLossTargets> host, Device device) : items_(host->items()) {
    if (device.kind == Device::Kind::kCpu) {
      host_ = std::move(host);
      return;
    }
    const auto place = [&](const auto& values) {
      return copies_.emplace_back(Tensor::from_vector(values, {int64_t(values.size())}).to(device));
    };
    items_.image = place(host->image).template data<int32_t>();
    items_.target = place(host->target).template data<int32_t>();
    items_.boxes = place(host->boxes).template data<float>();
    items_.area = place(host->area).template data<float>();
  }
  const MaskLossItems& items() const { return items_; }

 private:
  MaskLossItems items_{};
  std::shared_ptr<const MaskLossTargets> host_;
  std::vector<Tensor> copies_;
};

class MaskLossNode final : public Node {
 public:
  MaskLossNode(const Variable& coefficients, const Variable& prototypes, const Tensor& masks, PlacedTargets targets)
      : Node({Edge(coefficients), Edge(prototypes)}),
        coefficients_(coefficients.data()),
        prototypes_(prototypes.data()),
        masks_(masks),
        targets_(std::move(targets)) {}
  std::string_view name() const override { return "mask_loss"; }
  void backward(Grad dy, Engine& engine) override {
    const Tensor &c = coefficients_.get(), &p = prototypes_.get();
    const Tensor dc = Tensor::zeros(c.shape(), c.dtype(), c.device());
    const Tensor dp = Tensor::zeros(p.shape(), p.dtype(), p.device());
    ops::mask_loss_backward(c, p, masks_.get(), targets_.items(), dy.value.item(), dc, dp);
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
  PlacedTargets targets_;
};

// On the host.
Tensor scalar_like(const Variable& x, double value) { return Tensor::scalar(value, x.data().dtype()); }

}  // namespace

Variable bce_with_logits(const Variable& x, const Tensor& target) {
  const double sum = ops::bce_with_logits(x.data(), target);
  return Variable::result(scalar_like(x, sum), needs_grad({&x}) ? std::make_shared<BceNode>(x, target) : nullptr);
}

Variable ciou_loss(const Variable& boxes, const Tensor& target, const Tensor& weight) {
  const double sum = ops::ciou_loss(boxes.data(), target, weight);
  return Variable::result(scalar_like(boxes, sum), needs_grad({&boxes}) ? std::make_shared<RowLossNode>(
                              "ciou_loss", &ops::ciou_loss_backward, boxes, target, weight) : nullptr);
}

Variable dfl_loss(const Variable& logits, const Tensor& target, const Tensor& weight) {
  const double sum = ops::dfl_loss(logits.data(), target, weight);
  return Variable::result(scalar_like(logits, sum), needs_grad({&logits}) ? std::make_shared<RowLossNode>(
                              "dfl_loss", &ops::dfl_loss_backward, logits, target, weight) : nullptr);
}

Variable mask_loss(const Variable& coefficients, const Variable& prototypes, const Tensor& masks,
                   std::shared_ptr<const MaskLossTargets> targets) {
  PlacedTargets placed(std::move(targets), prototypes.data().device());
  const double sum = ops::mask_loss(coefficients.data(), prototypes.data(), masks, placed.items());
  const bool record = needs_grad({&coefficients, &prototypes});
  return Variable::result(scalar_like(prototypes, sum),
                          record ? std::make_shared<MaskLossNode>(coefficients, prototypes, masks, std::move(placed)) : nullptr);
}

}  // namespace tessera::ag
