#include "autograd/engine.h"

#include <algorithm>

#include "autograd/grad_mode.h"
#include "tensor/backend.h"
#include "tensor/base/scope.h"
#include "tensor/ops/pointwise.h"

namespace tessera {

void Engine::run(const Variable& root, const Tensor& seed) {
  TESSERA_CHECK(root.requires_grad(), "backward(): nothing upstream requires a gradient");
  TESSERA_CHECK(seed.shape() == root.shape(), "backward(): seed {} for {}", describe(seed), describe(root.data()));
  NoGrad guard;
  send(Edge(root), {seed, false});
  while (!heap_.empty()) {
    Node* const key = heap_.top().second;
    heap_.pop();
    auto entry = slots_.extract(key);
    const std::shared_ptr<Node> node = entry.mapped().node;
    TESSERA_CHECK(!node->freed, "backward() ran twice over one graph: '{}' has freed what it saved", node->name());
    const ScopeGuard scope({node->owner, true});
    node->backward(assemble(entry.mapped()), *this);
    if (leaf_listener_) {
      for (const Edge& e : node->inputs) {
        if (e.leaf && e.leaf->grad.defined()) leaf_listener_(e.leaf->grad);
      }
    }
    node->release();
    node->freed = true;
    node->inputs.clear();  // lets older nodes go as soon as they have run
  }
  join_beside();
}

void Engine::join_beside() {
  if (beside_.empty()) return;
  backend_for((*beside_.begin())->grad.device()).join_calls_beside();
  beside_.clear();
}

Engine::Slot& Engine::slot_of(const Edge& edge) {
  auto [it, fresh] = slots_.try_emplace(edge.node.get());
  if (fresh) {
    it->second.node = edge.node;
    it->second.shape = edge.shape;
    heap_.emplace(edge.node->order, edge.node.get());
  }
  return it->second;
}

void Engine::add(Grad& sum, Grad grad) {
  if (!sum.value.defined()) {
    sum = std::move(grad);
    return;
  }
  if (grad.value.dtype() != sum.value.dtype()) grad = {grad.value.to(sum.value.dtype()), true};  // Node::gradient_type
  if (sum.exclusive) {
    ops::add_scaled(grad.value, 1.0, sum.value);
  } else if (grad.exclusive) {
    ops::add_scaled(sum.value, 1.0, grad.value);
    sum = std::move(grad);
  } else {
    sum = {sum.value.clone(), true};
    ops::add_scaled(grad.value, 1.0, sum.value);
  }
}

void Engine::add_slice(Slot& slot, int64_t start, Grad grad) {
  const int64_t length = grad.value.shape().back();
  if (slot.whole.value.defined()) {
    if (!slot.whole.exclusive) slot.whole = {slot.whole.value.clone(), true};
    ops::add_scaled(grad.value, 1.0, slot.whole.value.narrow(-1, start, length));
    return;
  }
  for (Slice& s : slot.slices) {
    const int64_t s_length = s.grad.value.shape().back();
    if (s.start == start && s_length == length) return add(s.grad, std::move(grad));
    if (start < s.start + s_length && s.start < start + length) {  // partial overlap: fall back to the whole
      slot.whole = assemble(slot);
      return add_slice(slot, start, std::move(grad));
    }
  }
  slot.slices.push_back({start, std::move(grad)});
}

Grad Engine::assemble(Slot& slot) {
  if (slot.whole.value.defined()) return std::move(slot.whole);
  auto& slices = slot.slices;
  std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) { return a.start < b.start; });
  Tensor joined = slices.front().grad.value;
  bool exclusive = true;
  for (size_t i = 1; i < slices.size() && joined.defined(); ++i) joined = Tensor::join_adjacent(joined, slices[i].grad.value);
  for (const Slice& s : slices) exclusive = exclusive && s.grad.exclusive;
  if (joined.defined() && joined.shape() == slot.shape) {
    slices.clear();
    return {joined, exclusive};
  }
  const Tensor& first = slices.front().grad.value;
  Tensor whole = Tensor::zeros(slot.shape, first.dtype(), first.device());
  for (const Slice& s : slices) whole.narrow(-1, s.start, s.grad.value.shape().back()).copy_from(s.grad.value);
  slices.clear();
  return {whole, true};
}

void Engine::send_to_leaf(const std::shared_ptr<Variable::State>& leaf, const Grad& grad) {
  if (leaf->grad.defined()) {
    if (beside_.contains(leaf)) join_beside();
    ops::add_scaled(grad.value, 1.0, leaf->grad);
  } else {
    leaf->grad = grad.exclusive && grad.value.is_dense() ? grad.value : grad.value.clone();
  }
}

void Engine::send(const Edge& edge, Grad grad) {
  if (!edge) return;
  TESSERA_CHECK(grad.value.shape() == edge.shape, "gradient {} sent to an input of shape {}", describe(grad.value),
                to_string(edge.shape));
  if (edge.leaf) return send_to_leaf(edge.leaf, grad);
  Slot& slot = slot_of(edge);
  if (slot.slices.empty()) return add(slot.whole, std::move(grad));
  Grad whole = assemble(slot);
  add(whole, std::move(grad));
  slot.whole = std::move(whole);
}

void Engine::send_slice(const Edge& edge, int64_t start, Grad grad) {
  if (!edge) return;
  if (edge.leaf) {
    Tensor whole = Tensor::zeros(edge.shape, grad.value.dtype(), grad.value.device());
    whole.narrow(-1, start, grad.value.shape().back()).copy_from(grad.value);
    return send_to_leaf(edge.leaf, {whole, true});
  }
  add_slice(slot_of(edge), start, std::move(grad));
}

const Tensor* Engine::grad_target(const Edge& edge) {
  if (!edge.leaf || !edge.leaf->grad.defined()) return nullptr;
  if (beside_.contains(edge.leaf)) join_beside();
  return &edge.leaf->grad;
}

const Tensor* Engine::grad_target_beside(const Edge& edge) {
  if (!edge.leaf || !edge.leaf->grad.defined()) return nullptr;
  beside_.insert(edge.leaf);
  return &edge.leaf->grad;
}

Tensor Engine::sum_target(const Edge& edge) {
  if (edge.leaf) {
    const Tensor* grad = grad_target(edge);
    return grad != nullptr ? *grad : Tensor();
  }
  const auto it = slots_.find(edge.node.get());
  if (it == slots_.end()) {
    const int64_t channel = edge.node->first_channel();
    if (channel < 0) return {};
    const Edge& whole = edge.node->inputs[0];
    const auto of_whole = slots_.find(whole.node.get());
    if (of_whole == slots_.end() || !of_whole->second.slices.empty()) return {};
    const Tensor sum = sum_target(whole);
    return sum.defined() ? sum.narrow(-1, channel, edge.shape.back()) : Tensor();
  }
  Slot& slot = it->second;
  if (!slot.slices.empty()) slot.whole = assemble(slot);
  return slot.whole.exclusive ? slot.whole.value : Tensor();
}

}  // namespace tessera
