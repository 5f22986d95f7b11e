#include "autograd/functions/index.h"

#include "autograd/engine.h"
#include "tensor/ops/index.h"

namespace tessera::ag {

namespace {
class GatherNode final : public Node {
 public:
  GatherNode(const Variable& x, Tensor index) : Node({Edge(x)}), index_(std::move(index)) {}
  std::string_view name() const override { return "gather_rows"; }
  void backward(Grad dy, Engine& engine) override {
    Tensor dx = Tensor::zeros(inputs[0].shape, dy.value.dtype(), dy.value.device());
    ops::scatter_add_rows(dy.value, index_.get(), dx);
    engine.send(inputs[0], {dx, true});
  }
  void release() override { index_.release(); }
  int64_t saved_bytes() const override { return index_.bytes(); }

 private:
  Saved index_;
};
}  // namespace

Variable gather_rows(const Variable& x, const Tensor& index) {
  Tensor y = ops::gather_rows(x.data(), index);
  return Variable::result(std::move(y), needs_grad({&x}) ? std::make_shared<GatherNode>(x, index) : nullptr);
}

}  // namespace tessera::ag
