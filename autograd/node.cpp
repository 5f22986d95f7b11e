#include "autograd/node.h"

#include <atomic>

#include "autograd/grad_mode.h"
#include "tensor/base/scope.h"

namespace tessera {

namespace {
std::atomic<uint64_t> next_order{1};
}

Edge::Edge(const Variable& input) {
  if (!input.defined()) return;
  shape = input.shape();
  if (input.state_->node) {
    node = input.state_->node;
  } else if (input.state_->requires_grad) {
    leaf = input.state_;
  }
}

Node::Node(std::vector<Edge> edges)
    : inputs(std::move(edges)), order(next_order.fetch_add(1, std::memory_order_relaxed)), owner(current_scope().owner) {}

Node::~Node() {
  std::vector<std::shared_ptr<Node>> pending;
  auto take = [&](Node& n) {
    for (Edge& e : n.inputs) {
      if (e.node) pending.push_back(std::move(e.node));
    }
  };
  take(*this);
  while (!pending.empty()) {
    const std::shared_ptr<Node> node = std::move(pending.back());
    pending.pop_back();
    if (node.use_count() == 1) take(*node);
  }
}

const Tensor& Saved::get() const {
  TESSERA_CHECK(tensor_.defined(), "a saved tensor was used after its graph had been freed (backward() ran twice?)");
  TESSERA_CHECK(tensor_.version() == version_, "a tensor {} saved for backward was written to afterwards (version {}, saved at {})",
                describe(tensor_), tensor_.version(), version_);
  return tensor_;
}

DType gradient_type_of(std::span<const Edge> inputs, DType of_result) {
  DType type = of_result;
  bool first = true;
  for (const Edge& e : inputs) {
    if (!e) continue;
    const DType wanted = e.node ? e.node->gradient_type(of_result) : of_result;
    if (!first && wanted != type) return of_result;
    type = wanted;
    first = false;
  }
  return type;
}

bool needs_grad(std::initializer_list<const Variable*> inputs) {
  if (!grad_enabled()) return false;
  for (const Variable* v : inputs) {
    if (v->defined() && v->requires_grad()) return true;
  }
  return false;
}

}  // namespace tessera
