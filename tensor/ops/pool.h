// Max pooling and resizes, channels last. Backward: dx (+)= dy of every place that a value was copied to.
#pragma once

#include <utility>

#include "tensor/tensor.h"

namespace tessera {

struct PoolParams {
  int64_t kernel = 2, stride = 2, pad = 0;  // kernel <= 15, pad <= kernel / 2; padding never wins: it counts as minus infinity
};

class PoolOps {
 public:
  virtual ~PoolOps() = default;
  // y: (h + 2*pad - kernel) / stride + 1 high. index (u8, dense, like y; null: none): ky * kernel + kx of the first in scan order.
  virtual void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) = 0;
  virtual void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) = 0;
  // y[n, 2i+a, 2j+b, c] = x[n, i, j, c].
  virtual void upsample2x(ImageView x, ImageView y) = 0;
  virtual void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) = 0;
  // To the size of y, without aligned corners: y = sum of four x with the weights of tap_of (tensor/ops/bilinear.h). Of images, so
  // that there is no gradient.
  virtual void resize_bilinear(ImageView x, ImageView y) = 0;
};

namespace ops {
std::pair<Tensor, Tensor> max_pool2d(const Tensor& x, const PoolParams& p, bool want_index, const Tensor& into = {});  // y, index
Tensor max_pool2d_backward(const Tensor& dy, const Tensor& index, const Shape& x_shape, const PoolParams& p, const Tensor& into = {},
                           bool accumulate = false);
Tensor upsample2x(const Tensor& x, const Tensor& into = {});
Tensor upsample2x_backward(const Tensor& dy, const Tensor& into = {}, bool accumulate = false);
Tensor resize_bilinear(const Tensor& x, int64_t height, int64_t width);
}  // namespace ops

}  // namespace tessera
