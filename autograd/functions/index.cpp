#include "autograd/functions/index.h"

#include "autograd/engine.h"
#include "tensor/ops/index.h"

namespace tessera::ag {

namespace {
std::vector<Edge> edges_of(std::span<const Variable> inputs) {
  std::vector<Edge> edges;
  for (const Variable& v : inputs) edges.emplace_back(v);
  return edges;
}

class GatherNode final : public Node {
 public:
  GatherNode(std::span<const Variable> tables, Tensor index) : Node(edges_of(tables)), index_(std::move(index)) {}
  std::string_view name() const override { return "gather_rows"; }
  void backward(Grad dy, Engine& engine) override {
    for (size_t t = 0; t < inputs.size(); ++t) {
      if (!inputs[t]) continue;
      Tensor dx = Tensor::zeros(inputs[t].shape, dy.value.dtype(), dy.value.device());
      ops::scatter_add_rows(dy.value, index_.get().select(0, int64_t(t)), dx);
      engine.send(inputs[t], {dx, true});
    }
  }
  void release() override { index_.release(); }
  int64_t saved_bytes() const override { return index_.bytes(); }

 private:
  Saved index_;
};
}  // namespace

Variable gather_rows(std::span<const Variable> tables, const Tensor& index) {
  TESSERA_CHECK(index.rank() == 2 && index.size(0) == int64_t(tables.size()), "gather_rows: got index {} for {} tables", describe(index),
                tables.size());
  bool record = false;
  Tensor y;
  for (size_t t = 0; t < tables.size(); ++t) {
    y = ops::gather_rows(tables[t].data(), index.select(0, int64_t(t)), y);
    record = record || needs_grad({&tables[t]});
  }
  return Variable::result(std::move(y), record ? std::make_shared<GatherNode>(tables, index) : nullptr);
}

Variable gather_rows(const Variable& x, const Tensor& index) {
  return gather_rows(std::span(&x, 1), index.view({1, index.numel()}));
}

}  // namespace tessera::ag
