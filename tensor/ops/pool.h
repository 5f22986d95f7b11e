// Max pooling and nearest-neighbour upsampling, channels last.
#pragma once

#include <utility>

#include "tensor/tensor.h"

namespace tessera {

struct PoolParams {
  int64_t kernel = 2, stride = 2, pad = 0;  // padding never wins: it counts as minus infinity
};

class PoolOps {
 public:
  virtual ~PoolOps() = default;
  // index (u8, dense, shape of y) = ky * kernel + kx of the first maximum in scan order; null p: not wanted (inference). kernel <= 15.
  virtual void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) = 0;
  virtual void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) = 0;
  // y[n, 2i+a, 2j+b, c] = x[n, i, j, c].
  virtual void upsample2x(ImageView x, ImageView y) = 0;
  virtual void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) = 0;
};

namespace ops {
std::pair<Tensor, Tensor> max_pool2d(const Tensor& x, const PoolParams& p, bool want_index, const Tensor& into = {});  // y, index
Tensor max_pool2d_backward(const Tensor& dy, const Tensor& index, const Shape& x_shape, const PoolParams& p);
Tensor upsample2x(const Tensor& x, const Tensor& into = {});
Tensor upsample2x_backward(const Tensor& dy);
}  // namespace ops

}  // namespace tessera
