// Max pooling and nearest-neighbour upsampling.
#include "cuda/kernels.h"
#include "cuda/unfinished.h"

namespace tessera::cuda {

void max_pool2d(ImageView, ImageView, ImageView, const PoolParams&) { no_kernel("max_pool2d"); }
void max_pool2d_backward(ImageView, ImageView, ImageView, const PoolParams&, bool) { no_kernel("max_pool2d_backward"); }
void upsample2x(ImageView, ImageView) { no_kernel("upsample2x"); }
void upsample2x_backward(ImageView, ImageView, bool) { no_kernel("upsample2x_backward"); }

}  // namespace tessera::cuda
