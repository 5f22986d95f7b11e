// Convolution as a matrix product out of shared memory (implicit GEMM): the matrix of windows is never stored, its panels are
// gathered from the image as they are needed. Four ops are this one product:
//
//                                  rows                   k                  columns
//   conv2d                         output pixels          (ky, kx, i)        o
//   conv2d_backward_data           input pixels           (ky, kx, o)        i
//   conv_transpose2x2              output pixels          c                  o     the gradient of a convolution of stride 2
//   conv_transpose2x2_backward     input pixels           (a, b, o)          c     a convolution of stride 2
//
// Note [Stride in gradients]: an input pixel gets from an output pixel only where (iy + pad - ky) is a multiple of the stride. So
// the pixels of the result fall into stride x stride classes by their position modulo the stride: all pixels of a class see the
// same taps, and every tap of a class reads a valid place. Each class is a product of its own (blockIdx.z); none multiplies by
// zeros.
#include "cuda/conv.h"
#include "cuda/conv_launch.cuh"

namespace tessera::cuda::tiled {

namespace {

template <class T, int N, int kCols, bool kFilterAlongK, class Out = T>
void run_tile(const char* name, const ImageView& x, const FilterView& w, const ImageView& y, const Geometry& g,
              const ConvEpilogue& epilogue, ResultStats* stats) {
  if constexpr (N == 8) {
    if (fills_device<128, kCols>(y, g)) {
      launch_conv_ahead<Tile<T, 128, kCols, true, kFilterAlongK>, T, kFilterAlongK, Out>(name, x, w, y, g, epilogue, stats);
    } else {
      launch_conv_ahead<Tile<T, 64, kCols, true, kFilterAlongK>, T, kFilterAlongK, Out>(name, x, w, y, g, epilogue, stats);
    }
  } else {
    // Element by element every thread has many rows to keep track of: a smaller tile leaves it the registers.
    constexpr int kRows = N == 1 && sizeof(T) == 2 ? 64 : 128;
    using TileT = Tile<T, kRows, kCols, true, kFilterAlongK>;
    launch(name, early({conv_blocks<kRows, kCols>(y, g), dim3(kTileThreads)}), conv_kernel<TileT, T, N, kFilterAlongK, Out>,
           images_of<const T>(x), filters_of<const T>(w), images_of<Out>(y), g, static_cast<const float*>(epilogue.bias),
           epilogue.activation, images_of<const Out>(epilogue.residual));
  }
}

// kWideResult: of f32 beside 16-bit operands.
template <bool kFilterAlongK, bool kWideResult = false>
void run(const char* name, const ImageView& x, const FilterView& w, const ImageView& y, const Geometry& g,
         const ConvEpilogue& epilogue, ResultStats* stats = nullptr) {
  for_floating(name, x.t, [&]<class T>() {
    using Out = std::conditional_t<kWideResult, float, T>;
    auto tile = [&]<int N>() {
      if (y.c <= 32) {  // half of a wide tile would be idle
        run_tile<T, N, 32, kFilterAlongK, Out>(name, x, w, y, g, epilogue, stats);
      } else {
        run_tile<T, N, 64, kFilterAlongK, Out>(name, x, w, y, g, epilogue, stats);
      }
    };
    if (in_packs<T>(x, w, y, epilogue.residual)) {
      tile.template operator()<kWide<T>>();
    } else {
      tile.template operator()<1>();
    }
  });
}

}  // namespace

void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue, ResultStats* stats) {
  if (stem::conv2d(x, w, y, p, epilogue, stats)) return;
  run<true>("conv2d", x, w, y, {false, size32(p.stride), size32(p.pad)}, epilogue, stats);
}

void conv2d_wide(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  run<true, true>("conv2d, wide", x, w, y, {false, size32(p.stride), size32(p.pad)}, epilogue);
}

void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  run<false>("conv2d_backward_data", dy, w, dx, {true, size32(p.stride), size32(p.pad)}, adding_to(dx, accumulate));
}

void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  run<true>("conv_transpose2x2", x, w, y, {true, 2, 0}, {.bias = bias});
}

void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  run<false>("conv_transpose2x2_backward_data", dy, w, dx, {false, 2, 0}, adding_to(dx, accumulate));
}

}  // namespace tessera::cuda::tiled
