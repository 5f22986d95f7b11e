#include "tensor/ops/softmax.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
Tensor forward(std::string_view op, const Tensor& x, bool log) {
  check_floating(op, "x", x);
  TESSERA_CHECK(x.rank() >= 1, "{}: got x {}, expected rank 1 or more", op, describe(x));
  const Tensor in = readable(x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  backend_for(x.device()).softmax(in.rows(), y.rows(), log);
  return y;
}

Tensor backward(std::string_view op, const Tensor& y, const Tensor& dy, bool log) {
  check_floating(op, "y", y);
  check_like(op, "dy", dy, y.shape(), y);
  const Tensor result = readable(y);
  const Tensor gradient = readable(dy);
  Tensor dx = Tensor::empty(y.shape(), y.dtype(), y.device());
  backend_for(y.device()).softmax_backward(result.rows(), gradient.rows(), dx.rows(), log);
  return dx;
}
}  // namespace

Tensor softmax(const Tensor& x) { return forward("softmax", x, /*log=*/false); }
Tensor log_softmax(const Tensor& x) { return forward("log_softmax", x, /*log=*/true); }
Tensor softmax_backward(const Tensor& y, const Tensor& dy) { return backward("softmax_backward", y, dy, /*log=*/false); }
Tensor log_softmax_backward(const Tensor& y, const Tensor& dy) { return backward("log_softmax_backward", y, dy, /*log=*/true); }

}  // namespace tessera::ops
