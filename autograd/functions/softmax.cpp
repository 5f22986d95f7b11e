#include "autograd/functions/softmax.h"

#include "autograd/engine.h"
#include "tensor/ops/softmax.h"

namespace tessera::ag {

namespace {
class SoftmaxNode final : public Node {
 public:
  SoftmaxNode(const Variable& x, Tensor y, bool log) : Node({Edge(x)}), y_(std::move(y)), log_(log) {}
  std::string_view name() const override { return log_ ? "log_softmax" : "softmax"; }
  void backward(Grad dy, Engine& engine) override {
    engine.send(inputs[0], {log_ ? ops::log_softmax_backward(y_.get(), dy.value) : ops::softmax_backward(y_.get(), dy.value), true});
  }
  void release() override { y_.release(); }
  int64_t saved_bytes() const override { return y_.bytes(); }

 private:
  Saved y_;
  bool log_;
};
}  // namespace

Variable softmax(const Variable& x) {
  Tensor y = ops::softmax(x.data());
  return Variable::result(y, needs_grad({&x}) ? std::make_shared<SoftmaxNode>(x, y, false) : nullptr);
}

Variable log_softmax(const Variable& x) {
  Tensor y = ops::log_softmax(x.data());
  return Variable::result(y, needs_grad({&x}) ? std::make_shared<SoftmaxNode>(x, y, true) : nullptr);
}

}  // namespace tessera::ag
