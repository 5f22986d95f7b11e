#include "tensor/ops/pool.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
Shape pool_shape(const Shape& x, const PoolParams& p) {
  TESSERA_CHECK(x.rank() == 4, "max_pool2d: got x {}, expected (N, H, W, C)", to_string(x));
  TESSERA_CHECK(p.kernel >= 1 && p.kernel <= 15 && p.stride >= 1 && p.pad >= 0 && 2 * p.pad <= p.kernel,
                "max_pool2d: got kernel {}, stride {}, pad {}, expected kernel in 1..15, stride >= 1, pad <= kernel / 2", p.kernel,
                p.stride, p.pad);
  TESSERA_CHECK(x[1] + 2 * p.pad >= p.kernel && x[2] + 2 * p.pad >= p.kernel,
                "max_pool2d: got x {} with pad {}, expected at least the kernel {}", to_string(x), p.pad, p.kernel);
  return {x[0], (x[1] + 2 * p.pad - p.kernel) / p.stride + 1, (x[2] + 2 * p.pad - p.kernel) / p.stride + 1, x[3]};
}
}  // namespace

std::pair<Tensor, Tensor> max_pool2d(const Tensor& x, const PoolParams& p, bool want_index, const Tensor& into) {
  check_floating("max_pool2d", "x", x);
  const Shape shape = pool_shape(x.shape(), p);
  const Tensor in = readable(x);
  Tensor y = output("max_pool2d", into, shape, x);
  Tensor index;
  ImageView index_view{};
  if (want_index) {
    index = Tensor::empty(shape, DType::kU8, x.device());
    index_view = index.image();
  }
  backend_for(x.device()).max_pool2d(in.image(), y.image(), index_view, p);
  return {y, index};
}

Tensor max_pool2d_backward(const Tensor& dy, const Tensor& index, const Shape& x_shape, const PoolParams& p, const Tensor& into,
                           bool accumulate) {
  check_floating("max_pool2d_backward", "dy", dy);
  check_like("max_pool2d_backward", "dy", dy, pool_shape(x_shape, p), dy);
  check_type_and_device("max_pool2d_backward", "index", index, DType::kU8, dy.device());
  TESSERA_CHECK(index.shape() == dy.shape() && index.is_dense(), "max_pool2d_backward: got index {}, expected dense {}",
                describe(index), to_string(dy.shape()));
  TESSERA_CHECK(into.defined() || !accumulate, "max_pool2d_backward: got accumulate without into, expected a tensor to add to");
  const Tensor gradient = readable(dy);
  Tensor dx = output("max_pool2d_backward", into, x_shape, dy);
  backend_for(dy.device()).max_pool2d_backward(gradient.image(), index.image(), dx.image(), p, accumulate);
  return dx;
}

Tensor upsample2x(const Tensor& x, const Tensor& into) {
  check_floating("upsample2x", "x", x);
  TESSERA_CHECK(x.rank() == 4, "upsample2x: got x {}, expected (N, H, W, C)", describe(x));
  const Tensor in = readable(x);
  Tensor y = output("upsample2x", into, {x.shape()[0], 2 * x.shape()[1], 2 * x.shape()[2], x.shape()[3]}, x);
  backend_for(x.device()).upsample2x(in.image(), y.image());
  return y;
}

Tensor upsample2x_backward(const Tensor& dy, const Tensor& into, bool accumulate) {
  check_floating("upsample2x_backward", "dy", dy);
  TESSERA_CHECK(dy.rank() == 4 && dy.shape()[1] % 2 == 0 && dy.shape()[2] % 2 == 0,
                "upsample2x_backward: got dy {}, expected (N, H, W, C) with even H and W", describe(dy));
  TESSERA_CHECK(into.defined() || !accumulate, "upsample2x_backward: got accumulate without into, expected a tensor to add to");
  const Tensor gradient = readable(dy);
  Tensor dx = output("upsample2x_backward", into, {dy.shape()[0], dy.shape()[1] / 2, dy.shape()[2] / 2, dy.shape()[3]}, dy);
  backend_for(dy.device()).upsample2x_backward(gradient.image(), dx.image(), accumulate);
  return dx;
}

Tensor resize_bilinear(const Tensor& x, int64_t height, int64_t width) {
  check_floating("resize_bilinear", "x", x);
  TESSERA_CHECK(x.rank() == 4 && x.numel() > 0 && height > 0 && width > 0,
                "resize_bilinear: got x {} for {}x{}, expected (N, H, W, C) that is not empty", describe(x), height, width);
  const Tensor in = readable(x);
  Tensor y = Tensor::empty({x.shape()[0], height, width, x.shape()[3]}, x.dtype(), x.device());
  backend_for(x.device()).resize_bilinear(in.image(), y.image());
  return y;
}

}  // namespace tessera::ops
