#include "autograd/variable.h"

#include "autograd/engine.h"
#include "autograd/grad_mode.h"

namespace tessera {

namespace {
thread_local bool recording = true;
}

bool grad_enabled() { return recording; }
NoGrad::NoGrad() : previous_(recording) { recording = false; }
NoGrad::~NoGrad() { recording = previous_; }

Variable::Variable(Tensor data, bool requires_grad, std::string name) : state_(std::make_shared<State>()) {
  state_->data = std::move(data);
  state_->requires_grad = requires_grad;
  state_->name = std::move(name);
}

Variable Variable::result(Tensor data, std::shared_ptr<Node> node) {
  Variable v(std::move(data));
  v.state_->node = std::move(node);
  return v;
}

void Variable::set_data(Tensor data) {
  TESSERA_CHECK(!state_->node, "set_data: only leaves may be re-seated");
  TESSERA_CHECK(!state_->data.defined() || data.shape() == state_->data.shape(), "set_data of '{}': got {}, expected {}", name(),
                describe(data), describe(state_->data));
  state_->data = std::move(data);
}

void Variable::backward() const {
  TESSERA_CHECK(data().numel() == 1, "backward() without a seed needs one element, got {}", describe(data()));
  backward(Tensor::full(shape(), 1.0, data().dtype(), data().device()));
}

void Variable::backward(const Tensor& seed) const {
  Engine engine;
  engine.run(*this, seed);
}

}  // namespace tessera
