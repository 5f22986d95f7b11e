// Node: one recorded operation. A subclass keeps what its backward pass needs as named fields (Tensors, never Variables, so that
// cycles cannot form) and turns the gradient of its result into gradients of its inputs.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/variable.h"

namespace tessera {

class Engine;

// Where a gradient goes: the Node that made an input, or a leaf. Neither: the input needs none.
struct Edge {
  Edge() = default;
  explicit Edge(const Variable& input);
  explicit operator bool() const { return node || leaf; }

  std::shared_ptr<Node> node;
  std::shared_ptr<Variable::State> leaf;
  Shape shape;  // of the input
};

// A gradient on its way. exclusive: nobody else reads or writes this memory region, so the receiver may add into it.
struct Grad {
  Tensor value;
  bool exclusive = false;
};

class Node {
 public:
  explicit Node(std::vector<Edge> edges);
  virtual ~Node();  // iterative: a graph of any depth goes without recursion
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  virtual std::string_view name() const = 0;
  // Sends the gradients of `inputs`, given that of the result (dy, of the result's shape). Called once.
  virtual void backward(Grad dy, Engine& engine) = 0;
  // Frees saved tensors; called after backward().
  virtual void release() = 0;
  virtual int64_t saved_bytes() const = 0;
  // True: recompute() returns this node's result once more, bit for bit, from what the node keeps for its own backward pass, and
  // until that has run. A node that needs the result in its backward pass then need not keep it (SavedInput).
  virtual bool recomputable() const { return false; }
  virtual Tensor recompute() const { TESSERA_CHECK(false, "'{}' cannot make its result again", name()); }

  // The type in which this node reads the gradient of its result. The node that sends it may write that type rather than the
  // result's own.
  virtual DType gradient_type(DType of_result) const { return of_result; }
  // For a result that is a channel slice of the node's only input: its first channel there. -1: any other result.
  virtual int64_t first_channel() const { return -1; }

  std::vector<Edge> inputs;
  const uint64_t order;     // creation number: inputs of a node are always older
  const void* const owner;  // of the scope it was made in (tensor/base/scope.h)
  bool freed = false;       // backward has run: inputs and saved tensors are gone
};

// A tensor kept for the backward pass. get() checks that nothing has been written into it since (TESSERA_CHECK): the gradient would
// be wrong.
class Saved {
 public:
  Saved() = default;
  Saved(Tensor tensor) : tensor_(std::move(tensor)), version_(tensor_.defined() ? tensor_.version() : 0) {}  // NOLINT: implicit
  const Tensor& get() const;
  bool defined() const { return tensor_.defined(); }
  void release() { tensor_ = {}; }
  int64_t bytes() const { return tensor_.defined() ? tensor_.numel() * int64_t(size_of(tensor_.dtype())) : 0; }

 private:
  Tensor tensor_;
  uint64_t version_ = 0;
};

// The input of an operation, for its backward pass: kept, or made again by the node that it came from (ADR 11).
class SavedInput {
 public:
  explicit SavedInput(const Variable& x) {
    if (!x.node() || !x.node()->recomputable()) kept_ = x.data();
  }
  Tensor get(const Edge& source) const { return kept_.defined() || !source.node ? kept_.get() : source.node->recompute(); }
  void release() { kept_.release(); }
  int64_t bytes() const { return kept_.bytes(); }

 private:
  Saved kept_;
};

// The type in which the nodes that made `inputs` read gradients, if they agree on one; else `of_result`, the type of the inputs.
DType gradient_type_of(std::span<const Edge> inputs, DType of_result);

// True when a result of these inputs must be recorded.
bool needs_grad(std::initializer_list<const Variable*> inputs);

}  // namespace tessera
