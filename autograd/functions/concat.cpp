#include "autograd/functions/concat.h"

#include <algorithm>

#include "autograd/engine.h"
#include "tensor/ops/copy.h"

namespace tessera::ag {

namespace {

std::vector<Edge> edges_of(std::span<const Variable> parts) {
  std::vector<Edge> edges;
  for (const Variable& v : parts) edges.emplace_back(v);
  return edges;
}

class ConcatNode final : public Node {
 public:
  ConcatNode(std::span<const Variable> parts, int axis) : Node(edges_of(parts)), axis_(axis) {
    for (const Variable& v : parts) sizes_.push_back(v.size(axis));
  }
  std::string_view name() const override { return "concat"; }
  // The slices of dy do not overlap, so each is as exclusive as dy itself.
  void backward(Grad dy, Engine& engine) override {
    int64_t start = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i]) engine.send(inputs[i], {dy.value.narrow(axis_, start, sizes_[i]), dy.exclusive});
      start += sizes_[i];
    }
  }
  void release() override {}
  int64_t saved_bytes() const override { return 0; }

 private:
  int axis_;
  std::vector<int64_t> sizes_;
};

Variable record(Tensor y, std::span<const Variable> parts, int axis) {
  const bool needed = std::any_of(parts.begin(), parts.end(), [](const Variable& v) { return needs_grad({&v}); });
  return Variable::result(std::move(y), needed ? std::make_shared<ConcatNode>(parts, axis) : nullptr);
}

Tensor copy_of(std::span<const Variable> parts, int axis) {
  std::vector<Tensor> tensors;
  for (const Variable& v : parts) tensors.push_back(v.data());
  return ops::concat(tensors, axis);
}

}  // namespace

Variable concat(std::span<const Variable> parts, int axis) {
  TESSERA_CHECK(!parts.empty(), "concat of nothing");
  axis = normalize_axis(axis, parts[0].data().rank());
  return record(copy_of(parts, axis), parts, axis);
}

Variable concat_channels(std::span<const Variable> parts) {
  TESSERA_CHECK(!parts.empty(), "concat of nothing");
  Tensor joined = parts[0].data();
  for (size_t i = 1; i < parts.size() && joined.defined(); ++i) joined = Tensor::join_adjacent(joined, parts[i].data());
  const int axis = parts[0].data().rank() - 1;
  return record(joined.defined() ? joined : copy_of(parts, axis), parts, axis);
}

}  // namespace tessera::ag
