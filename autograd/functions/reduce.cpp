#include "autograd/functions/reduce.h"

#include "autograd/engine.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/reduce.h"

namespace tessera::ag {

namespace {

class SumNode final : public Node {
 public:
  SumNode(const Variable& x, Shape kept, double factor) : Node({Edge(x)}), kept_(kept), factor_(factor) {}
  std::string_view name() const override { return factor_ == 1.0 ? "sum" : "mean"; }
  void backward(Grad dy, Engine& engine) override {
    const Tensor scaled = ops::scale(dy.value.contiguous(), factor_).view(kept_);
    engine.send(inputs[0], {scaled.expand(inputs[0].shape).clone(), true});
  }
  void release() override {}
  int64_t saved_bytes() const override { return 0; }

 private:
  Shape kept_;     // the result's shape with the reduced axes as 1
  double factor_;  // 1 / count for the mean
};

Variable reduce(ReduceOp op, const Variable& x, const std::vector<int>& axes, bool keep_dims) {
  Shape kept = x.shape();
  for (int i = 0; i < kept.rank(); ++i) {
    if (axes.empty()) kept[i] = 1;
  }
  for (int axis : axes) kept[normalize_axis(axis, kept.rank())] = 1;
  Tensor y = ops::reduce(op, x.data(), axes, keep_dims);
  const double count = double(x.data().numel()) / double(numel(kept));
  return Variable::result(std::move(y),
                          needs_grad({&x}) ? std::make_shared<SumNode>(x, kept, op == ReduceOp::kMean ? 1.0 / count : 1.0) : nullptr);
}

}  // namespace

Variable sum(const Variable& x, const std::vector<int>& axes, bool keep_dims) { return reduce(ReduceOp::kSum, x, axes, keep_dims); }
Variable mean(const Variable& x, const std::vector<int>& axes, bool keep_dims) { return reduce(ReduceOp::kMean, x, axes, keep_dims); }

}  // namespace tessera::ag
