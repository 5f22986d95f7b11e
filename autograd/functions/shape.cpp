#include "autograd/functions/shape.h"

#include "autograd/engine.h"

namespace tessera::ag {

namespace {

class ViewNode final : public Node {
 public:
  explicit ViewNode(const Variable& x) : Node({Edge(x)}) {}
  std::string_view name() const override { return "view"; }
  void backward(Grad dy, Engine& engine) override {
    engine.send(inputs[0], {dy.value.contiguous().view(inputs[0].shape), dy.exclusive});
  }
  void release() override {}
  int64_t saved_bytes() const override { return 0; }
};

class NarrowNode final : public Node {
 public:
  NarrowNode(const Variable& x, int64_t start) : Node({Edge(x)}), start_(start) {}
  std::string_view name() const override { return "narrow"; }
  void backward(Grad dy, Engine& engine) override { engine.send_slice(inputs[0], start_, std::move(dy)); }
  int64_t first_channel() const override { return start_; }
  void release() override {}
  int64_t saved_bytes() const override { return 0; }

 private:
  int64_t start_;
};

}  // namespace

Variable view(const Variable& x, const Shape& shape) {
  return Variable::result(x.data().view(shape), needs_grad({&x}) ? std::make_shared<ViewNode>(x) : nullptr);
}

Variable narrow_channels(const Variable& x, int64_t start, int64_t n) {
  return Variable::result(x.data().narrow(-1, start, n), needs_grad({&x}) ? std::make_shared<NarrowNode>(x, start) : nullptr);
}

}  // namespace tessera::ag
