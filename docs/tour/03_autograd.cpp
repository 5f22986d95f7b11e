// Chapter 3 of the tour; the text is 03_autograd.md.
#include "autograd/engine.h"
#include "autograd/functions/matmul.h"
#include "autograd/functions/pointwise.h"
#include "autograd/functions/reduce.h"
#include "autograd/grad_mode.h"
#include "autograd/gradcheck.h"
#include "autograd/graph_dump.h"
#include "docs/tour/tour.h"
#include "tensor/cpu/install.h"

using namespace tessera;
using tour::claim;
using tour::heading;

namespace {

// softsign(x) = x / (1 + |x|), with the derivative 1 / (1 + |x|)^2.
Tensor one_plus_abs(const Tensor& x) {
  return ops::binary(BinaryOp::kAdd, ops::unary(UnaryOp::kAbs, x), Tensor::scalar(1, x.dtype()));
}

class SoftsignNode final : public Node {
 public:
  explicit SoftsignNode(const Variable& x) : Node({Edge(x)}), x_(x.data()) {}
  std::string_view name() const override { return "softsign"; }
  void backward(Grad dy, Engine& engine) override {
    const Tensor squared = ops::unary(UnaryOp::kSquare, one_plus_abs(x_.get()));
    engine.send(inputs[0], {ops::binary(BinaryOp::kDivide, dy.value, squared), /*exclusive=*/true});
  }
  void release() override { x_.release(); }
  int64_t saved_bytes() const override { return x_.bytes(); }

 private:
  Saved x_;
};

Variable softsign(const Variable& x) {
  Tensor y = ops::binary(BinaryOp::kDivide, x.data(), one_plus_abs(x.data()));
  return Variable::result(std::move(y), needs_grad({&x}) ? std::make_shared<SoftsignNode>(x) : nullptr);
}

}  // namespace

int main() {
  install_cpu_backends();

  heading("A loss is a graph");
  const Variable x(Tensor::from_floats({1, 2, 3, 4, 5, 6}, {3, 2}));  // three samples of two numbers
  const Variable target(Tensor::from_floats({1, 0, 2}, {3, 1}));
  Variable w(Tensor::from_floats({0.5f, -1}, {2, 1}), /*requires_grad=*/true, "w");
  const auto loss_of = [&] {
    const Variable error = ag::subtract(ag::matmul(x, w), target);
    return ag::mean(ag::multiply(error, error));
  };
  const Variable loss = loss_of();
  fmt::print("{}", graph_text(loss));
  claim(loss.data().item() == 14.25, "the loss is 14.25");

  heading("backward() fills the leaves");
  loss.backward();  // dw = 2/3 x^T (x w - target)
  claim(std::abs(w.grad().data<float>()[0] - -25) < 1e-4 && std::abs(w.grad().data<float>()[1] - -32) < 1e-4,
        "dw is (-25, -32), as by hand");
  claim(!x.grad().defined(), "x, which asked for none, has no gradient");

  heading("Gradient descent is a loop around that");
  for (int step = 0; step < 300; ++step) {
    ops::add_scaled(w.grad(), -0.02, w.data());
    w.set_grad({});  // else the next backward pass adds to it
    loss_of().backward();
  }
  const double least = loss_of().data().item();
  fmt::print("  loss {:.4f} with w = {}\n", least, to_string(w.data()));
  claim(least < 1.0, "the loss has fallen from 14.25 below 1");

  heading("A function of our own");
  const Variable v(Tensor::from_floats({-3, -1, 0.5f, 2}, {4}), true);
  ag::sum(softsign(v)).backward();
  claim(std::abs(v.grad().data<float>()[0] - 1.0 / 16) < 1e-6, "its derivative at -3 is 1/16");

  heading("Is the gradient right? gradcheck");
  const Tensor inputs = Tensor::from_vector<double>({-2.5, -1.25, -0.5, 0.75, 1.5, 3}, {2, 3});
  const GradCheckResult right = gradcheck([](const std::vector<Variable>& in) { return softsign(in[0]); }, {inputs});
  claim(right.ok, fmt::format("against differences in f64 it is off by {:.0e} at most", right.max_error));
  const GradCheckResult wrong =
      gradcheck([](const std::vector<Variable>& in) { return ag::multiply(in[0], softsign(in[0].detach())); }, {inputs});
  claim(!wrong.ok, "a factor whose gradient is left out is noticed: " + wrong.worst);

  heading("What the engine refuses");
  const auto message_of = [](const auto& action) -> std::string {
    try {
      action();
    } catch (const Error& e) {
      return e.message();
    }
    return {};
  };
  const Variable once = ag::sum(softsign(v));
  once.backward();
  fmt::print("  {}\n", message_of([&] { once.backward(); }));
  claim(!message_of([&] { once.backward(); }).empty(), "a second pass over one graph");

  const Variable changed(Tensor::full({4}, 2), true);
  const Variable later = ag::sum(softsign(changed));
  changed.data().fill(3);
  fmt::print("  {}\n", message_of([&] { later.backward(); }));
  claim(!message_of([&] { later.backward(); }).empty(), "a saved tensor that was written to in between");

  heading("Nothing is recorded when nobody asks");
  claim(!softsign(x).node(), "no input wants a gradient: no node");
  const NoGrad guard;
  claim(!softsign(v).node(), "under NoGrad: no node either");
  return 0;
}
