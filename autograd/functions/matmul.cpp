#include "autograd/functions/matmul.h"

#include "autograd/engine.h"
#include "tensor/ops/matmul.h"

namespace tessera::ag {

namespace {
class MatmulNode final : public Node {
 public:
  MatmulNode(const Variable& a, const Variable& b, bool transpose_b)
      : Node({Edge(a), Edge(b)}), a_(a.data()), b_(b.data()), transpose_b_(transpose_b) {}
  std::string_view name() const override { return "matmul"; }
  void backward(Grad dy, Engine& engine) override {
    if (inputs[0]) engine.send(inputs[0], {ops::matmul(dy.value, b_.get(), false, !transpose_b_), true});
    if (!inputs[1]) return;
    engine.send(inputs[1], {transpose_b_ ? ops::matmul(dy.value, a_.get(), true, false) : ops::matmul(a_.get(), dy.value, true, false), true});
  }
  void release() override {
    a_.release();
    b_.release();
  }
  int64_t saved_bytes() const override { return a_.bytes() + b_.bytes(); }

 private:
  Saved a_, b_;
  bool transpose_b_;
};
}  // namespace

Variable matmul(const Variable& a, const Variable& b, bool transpose_b) {
  TESSERA_CHECK(a.data().rank() == b.data().rank(), "matmul: {} by {}", describe(a.data()), describe(b.data()));
  Tensor y = ops::matmul(a.data(), b.data(), false, transpose_b);
  return Variable::result(std::move(y), needs_grad({&a, &b}) ? std::make_shared<MatmulNode>(a, b, transpose_b) : nullptr);
}

}  // namespace tessera::ag
