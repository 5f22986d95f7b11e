#include "autograd/functions/pool.h"

#include "autograd/engine.h"

namespace tessera::ag {

namespace {

class MaxPoolNode final : public Node {
 public:
  MaxPoolNode(const Variable& x, Tensor index, const PoolParams& p) : Node({Edge(x)}), index_(std::move(index)), p_(p) {}
  std::string_view name() const override { return "max_pool2d"; }
  void backward(Grad dy, Engine& engine) override {
    engine.send_or_add(inputs[0], [&](const Tensor& into, bool add) {
      return ops::max_pool2d_backward(dy.value, index_.get(), inputs[0].shape, p_, into, add);
    });
  }
  void release() override { index_.release(); }
  int64_t saved_bytes() const override { return index_.bytes(); }

 private:
  Saved index_;
  PoolParams p_;
};

class UpsampleNode final : public Node {
 public:
  explicit UpsampleNode(const Variable& x) : Node({Edge(x)}) {}
  std::string_view name() const override { return "upsample2x"; }
  void backward(Grad dy, Engine& engine) override {
    engine.send_or_add(inputs[0], [&](const Tensor& into, bool add) { return ops::upsample2x_backward(dy.value, into, add); });
  }
  void release() override {}
  int64_t saved_bytes() const override { return 0; }
};

}  // namespace

Variable max_pool2d(const Variable& x, const PoolParams& p, const Tensor& into) {
  const bool record = needs_grad({&x});
  auto [y, index] = ops::max_pool2d(x.data(), p, record, into);
  return Variable::result(std::move(y), record ? std::make_shared<MaxPoolNode>(x, std::move(index), p) : nullptr);
}

Variable upsample2x(const Variable& x, const Tensor& into) {
  return Variable::result(ops::upsample2x(x.data(), into), needs_grad({&x}) ? std::make_shared<UpsampleNode>(x) : nullptr);
}

}  // namespace tessera::ag
