// Runs a graph backwards, newest node first. An operation is younger than its inputs, so when a node comes to the top of the heap
// every gradient that it will ever get has arrived: nothing has to be counted, nothing recurses, and saved tensors are freed as
// early as possible.
#pragma once

#include <functional>
#include <memory>
#include <queue>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "autograd/node.h"

namespace tessera {

class Engine {
 public:
  void run(const Variable& root, const Tensor& seed);  // gradients of sum(root * seed) into the leaves; frees the graph

  // Called with the gradient of a leaf each time an operation that reads the leaf has run backwards. After the last of these calls
  // the gradient is final, except that calls beside (tensor/beside.h) may still be adding to it on a device: a listener that reads
  // it calls Backend::join_calls_beside first.
  void on_leaf(std::function<void(const Tensor& grad)> listener) { leaf_listener_ = std::move(listener); }

  // What a Node::backward calls for its inputs. An edge that leads nowhere is ignored.
  //
  // send(): `grad` has the shape of the input.
  void send(const Edge& edge, Grad grad);
  // The gradient of channels [start, start + grad.size(-1)) of the input's last axis; that of the other channels is zero.
  void send_slice(const Edge& edge, int64_t start, Grad grad);
  // The gradient of a leaf, for a kernel that adds to it directly instead of sending; null when there is none yet.
  const Tensor* grad_target(const Edge& edge);
  // The same, for a call within a BesideGuard.
  const Tensor* grad_target_beside(const Edge& edge);
  // For operations that can add their gradient to a sum. Where the sum of what has arrived for the input may be added to in place,
  // compute(sum, true) does that; else compute(Tensor(), false) returns the gradient in a tensor of its own. An input that needs no
  // gradient calls nothing.
  template <class Compute>
  void send_or_add(const Edge& edge, Compute&& compute) {
    if (!edge) return;
    if (const Tensor sum = sum_target(edge); sum.defined()) {
      compute(sum, true);
    } else {
      send(edge, {compute(Tensor(), false), true});
    }
  }

 private:
  // The sum of what has arrived for an input, if more may be added in place; else undefined. For an input that is a channel slice
  // of another result, and for which alone nothing has arrived: that slice of the other one's sum.
  Tensor sum_target(const Edge& edge);

  struct Slice {
    int64_t start;
    Grad grad;
  };
  // What has arrived for a node: the whole gradient, or disjoint channel slices of it.
  struct Slot {
    std::shared_ptr<Node> node;
    Shape shape;
    Grad whole;
    std::vector<Slice> slices;
  };

  Slot& slot_of(const Edge& edge);
  static void add(Grad& sum, Grad grad);
  static void add_slice(Slot& slot, int64_t start, Grad grad);
  static Grad assemble(Slot& slot);
  void send_to_leaf(const std::shared_ptr<Variable::State>& leaf, const Grad& grad);
  void join_beside();

  std::priority_queue<std::pair<uint64_t, Node*>> heap_;
  std::unordered_map<Node*, Slot> slots_;
  std::unordered_set<std::shared_ptr<Variable::State>> beside_;  // leaves to whose gradients calls beside add
  std::function<void(const Tensor& grad)> leaf_listener_;
};

}  // namespace tessera
