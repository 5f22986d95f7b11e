// Forward convolution in 16 bits on the warpgroup instructions of sm_90a: the kernel of conv_tiled.cu with another tile. Compiled
// for sm_90a and nothing else (cmake/cuda.cmake). Only --conv wgmma asks for it.
#include "cuda/conv.h"
#include "cuda/device/conv_kernel.cuh"
#include "cuda/device/warpgroup.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda::wgmma {

bool conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  if (device().major != 9) return false;
  auto run = [&]<class T>() {
    using TileT = WarpgroupTile<T>;
    if (y.c <= TileT::kCols / 2 || !in_packs<T>(x, w, y)) return false;  // more than half of a tile would be idle
    const int64_t tiles = int64_t(blocks_for(y.n * y.h * y.w, TileT::kRows)) * blocks_for(y.c, TileT::kCols);
    launch("conv2d, wgmma", {dim3(blocks_for(tiles, 1)), dim3(kTileThreads)}, conv_kernel<TileT, T, kWide<T>, true>,
           images_of<const T>(x), filters_of<const T>(w), images_of<T>(y), Geometry{false, size32(p.stride), size32(p.pad)},
           static_cast<const float*>(epilogue.bias), epilogue.activation, images_of<const T>(epilogue.residual));
    return true;
  };
  switch (x.t) {
    case DType::kBF16: return run.operator()<BFloat16>();
    case DType::kF16: return run.operator()<Half>();
    default: return false;
  }
}

}  // namespace tessera::cuda::wgmma
