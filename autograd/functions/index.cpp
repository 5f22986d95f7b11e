#include "autograd/functions/index.h"

#include "autograd/engine.h"
#include "tensor/backend.h"
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
  GatherNode(std::span<const Variable> tables, Tensor index) : Node(edges_of(tables)), index_(std::move(index)) {
    for (const Variable& v : tables) shapes_.push_back(v.shape());
  }
  std::string_view name() const override { return "gather_rows"; }
  void backward(Grad dy, Engine& engine) override {
    // One buffer for all of them is one fill.
    int64_t all = 0;
    for (const Shape& s : shapes_) all += numel(s);
    // The few rows are rounded before they are spread, each into a row of its own, and not the whole afterwards.
    const bool narrow = backend_for(dy.value.device()).losses_take_narrow();
    const Tensor rows = dy.value.to(narrow ? gradient_type_of(inputs, dy.value.dtype()) : dy.value.dtype());
    const Tensor zeros = Tensor::zeros({all}, rows.dtype(), rows.device());
    std::vector<Tensor> dx;
    int64_t first = 0;
    for (const Shape& s : shapes_) {
      dx.push_back(zeros.narrow(0, first, numel(s)).view(s));
      first += numel(s);
    }
    ops::scatter_add_rows(rows, index_.get(), dx);
    for (size_t t = 0; t < inputs.size(); ++t) engine.send(inputs[t], {dx[t], true});
  }
  void release() override { index_.release(); }
  int64_t saved_bytes() const override { return index_.bytes(); }

 private:
  std::vector<Shape> shapes_;
  Saved index_;
};
}  // namespace

Variable gather_rows(std::span<const Variable> tables, const Tensor& index) {
  std::vector<Tensor> data;
  bool record = false;
  for (const Variable& v : tables) {
    data.push_back(v.data());
    record = record || needs_grad({&v});
  }
  Tensor y = ops::gather_rows(data, index);
  return Variable::result(std::move(y), record ? std::make_shared<GatherNode>(tables, index) : nullptr);
}

Variable gather_rows(const Variable& x, const Tensor& index) {
  return gather_rows(std::span(&x, 1), index.view({1, index.numel()}));
}

}  // namespace tessera::ag
