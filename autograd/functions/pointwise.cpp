#include "autograd/functions/pointwise.h"

#include "autograd/engine.h"
#include "tensor/ops/reduce.h"

namespace tessera::ag {

namespace {

class UnaryNode final : public Node {
 public:
  UnaryNode(UnaryOp op, const Variable& x) : Node({Edge(x)}), op_(op), x_(x.data()) {}
  std::string_view name() const override { return name_of(op_); }
  void backward(Grad dy, Engine& engine) override { engine.send(inputs[0], {ops::unary_backward(op_, x_.get(), dy.value), true}); }
  void release() override { x_.release(); }
  int64_t saved_bytes() const override { return x_.bytes(); }

 private:
  UnaryOp op_;
  Saved x_;
};

// Sums a gradient over the axes along which an operand of shape `wanted` had been repeated.
Tensor sum_to(const Tensor& grad, const Shape& wanted) {
  if (grad.shape() == wanted) return grad;
  std::vector<int> axes;
  const int extra = grad.rank() - wanted.rank();
  for (int i = 0; i < grad.rank(); ++i) {
    if (i < extra || (wanted[i - extra] == 1 && grad.shape()[i] != 1)) axes.push_back(i);
  }
  return ops::reduce(ReduceOp::kSum, grad, axes, true).contiguous().view(wanted);
}

class BinaryNode final : public Node {
 public:
  BinaryNode(BinaryOp op, const Variable& a, const Variable& b) : Node({Edge(a), Edge(b)}), op_(op) {
    if (op == BinaryOp::kMultiply || op == BinaryOp::kDivide) {
      a_ = a.data();
      b_ = b.data();
    }
  }
  std::string_view name() const override { return name_of(op_); }
  void backward(Grad dy, Engine& engine) override {
    switch (op_) {
      case BinaryOp::kAdd: return send(engine, dy.value, dy.value);
      case BinaryOp::kSubtract: return send(engine, dy.value, inputs[1] ? ops::scale(dy.value, -1.0) : Tensor{});
      case BinaryOp::kMultiply:
        return send(engine, inputs[0] ? ops::binary(BinaryOp::kMultiply, dy.value, b_.get()) : Tensor{},
                    inputs[1] ? ops::binary(BinaryOp::kMultiply, dy.value, a_.get()) : Tensor{});
      case BinaryOp::kDivide: {
        const Tensor da = ops::binary(BinaryOp::kDivide, dy.value, b_.get());
        Tensor db;
        if (inputs[1]) {  // -dy * a / b^2
          db = ops::scale(ops::binary(BinaryOp::kMultiply, da, ops::binary(BinaryOp::kDivide, a_.get(), b_.get())), -1.0);
        }
        return send(engine, da, db);
      }
      case BinaryOp::kMaximum:
      case BinaryOp::kMinimum: break;
    }
  }
  void release() override {
    a_.release();
    b_.release();
  }
  int64_t saved_bytes() const override { return a_.bytes() + b_.bytes(); }

 private:
  void send(Engine& engine, const Tensor& da, const Tensor& db) {
    if (inputs[0]) engine.send(inputs[0], {sum_to(da, inputs[0].shape), false});
    if (inputs[1]) engine.send(inputs[1], {sum_to(db, inputs[1].shape), false});
  }

  BinaryOp op_;
  Saved a_, b_;
};

class ScaleNode final : public Node {
 public:
  ScaleNode(const Variable& x, double alpha) : Node({Edge(x)}), alpha_(alpha) {}
  std::string_view name() const override { return "scale"; }
  void backward(Grad dy, Engine& engine) override { engine.send(inputs[0], {ops::scale(dy.value, alpha_), true}); }
  void release() override {}
  int64_t saved_bytes() const override { return 0; }

 private:
  double alpha_;
};

class CastNode final : public Node {
 public:
  CastNode(const Variable& x, DType to) : Node({Edge(x)}), from_(x.data().dtype()), to_(to) {}
  std::string_view name() const override { return "cast"; }
  void backward(Grad dy, Engine& engine) override { engine.send(inputs[0], {dy.value.to(from_), true}); }
  void release() override {}
  int64_t saved_bytes() const override { return 0; }
  bool recomputable() const override { return inputs[0].node && inputs[0].node->recomputable(); }
  Tensor recompute() const override { return inputs[0].node->recompute().to(to_); }

 private:
  DType from_, to_;
};

}  // namespace

Variable unary(UnaryOp op, const Variable& x) {
  Tensor y = ops::unary(op, x.data());
  return Variable::result(std::move(y), needs_grad({&x}) ? std::make_shared<UnaryNode>(op, x) : nullptr);
}

Variable binary(BinaryOp op, const Variable& a, const Variable& b) {
  const bool record = needs_grad({&a, &b});
  TESSERA_CHECK(!record || (op != BinaryOp::kMaximum && op != BinaryOp::kMinimum), "{} has no gradient here", name_of(op));
  Tensor y = ops::binary(op, a.data(), b.data());
  return Variable::result(std::move(y), record ? std::make_shared<BinaryNode>(op, a, b) : nullptr);
}

Variable scale(const Variable& x, double alpha) {
  Tensor y = ops::scale(x.data(), alpha);
  return Variable::result(std::move(y), needs_grad({&x}) ? std::make_shared<ScaleNode>(x, alpha) : nullptr);
}

Variable cast(const Variable& x, DType type) {
  if (x.data().dtype() == type) return x;
  return Variable::result(x.data().to(type), needs_grad({&x}) ? std::make_shared<CastNode>(x, type) : nullptr);
}

}  // namespace tessera::ag
