// Variable: a tensor that takes part in differentiation. It wraps a Tensor (which knows nothing of gradients) and remembers the
// Node that made it. Copies share everything.
#pragma once

#include <memory>
#include <string>

#include "tensor/tensor.h"

namespace tessera {

class Node;

class Variable {
 public:
  Variable() = default;  // undefined
  // A leaf. With requires_grad its gradient is kept in grad().
  explicit Variable(Tensor data, bool requires_grad = false, std::string name = {});
  // The result of an operation; `node` null when nothing upstream needs a gradient.
  static Variable result(Tensor data, std::shared_ptr<Node> node);

  bool defined() const { return state_ != nullptr; }
  const Tensor& data() const { return state_->data; }
  const Shape& shape() const { return state_->data.shape(); }
  int64_t size(int axis) const { return state_->data.size(axis); }
  // Replaces a leaf's tensor by another of the same shape (a slice of a parameter arena, a loaded weight).
  void set_data(Tensor data);

  // Gradient of a leaf; undefined before the first backward() unless set. A defined gradient is accumulated into.
  const Tensor& grad() const { return state_->grad; }
  void set_grad(Tensor grad) { state_->grad = std::move(grad); }

  // The same values rounded to 16 bits, during a step of a 16-bit training (nn/rounded_weights.h); else undefined.
  const Tensor& rounded() const { return state_->rounded; }
  void set_rounded(Tensor rounded) { state_->rounded = std::move(rounded); }

  bool requires_grad() const { return state_ && (state_->requires_grad || state_->node); }
  void set_requires_grad(bool on) { state_->requires_grad = on; }  // leaves only
  const std::string& name() const { return state_->name; }
  void set_name(std::string name) { state_->name = std::move(name); }
  const std::shared_ptr<Node>& node() const { return state_->node; }

  // Adds the gradient of this one-element variable to grad() of every leaf that requires it. Frees the graph as it goes, so it
  // runs once. TESSERA_CHECK: nothing upstream requires a gradient.
  void backward() const;
  void backward(const Tensor& seed) const;  // the gradient of sum(this * seed); both have the same shape, which may be any
  Variable detach() const { return Variable(data()); }

 private:
  friend class Engine;
  friend struct Edge;
  struct State {
    Tensor data;
    Tensor grad;
    Tensor rounded;
    std::shared_ptr<Node> node;
    bool requires_grad = false;
    std::string name;
  };
  std::shared_ptr<State> state_;
};

}  // namespace tessera
