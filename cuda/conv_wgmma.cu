// Convolution in 16 bits on the warpgroup instructions of sm_90a: the kernel of conv_tiled.cu with another tile. Compiled for sm_90a
// and nothing else (cmake/cuda.cmake).
#include "cuda/conv.h"
#include "cuda/conv_launch.cuh"
#include "cuda/device/warpgroup.cuh"

namespace tessera::cuda::wgmma {

namespace {

template <bool kFilterAlongK>
bool run(const char* name, const ImageView& x, const FilterView& w, const ImageView& y, const Geometry& g,
         const ConvEpilogue& epilogue, ResultStats* stats = nullptr) {
  if (!has_wgmma()) return false;
  return for_16_bits(x.t, [&]<class T>() {
    if (!in_packs<T>(x, w, y, epilogue.residual) || y.c <= 16) return false;  // more than half of a tile would be idle
    // Of a product with few values of k and few columns the tiles are mostly loads and stores: conv_tiled.cu, whose steps are
    // shorter, gets these.
    const int64_t depth = w.kh * w.kw * x.c / (g.spread ? g.stride * g.stride : 1);
    if (y.c <= 32 && depth < 256) return false;
    auto tile = [&]<int kRows, int kCols>() {
      launch_conv_ahead<WarpgroupTile<T, kRows, kCols, true, kFilterAlongK>, T, kFilterAlongK>(name, x, w, y, g, epilogue, stats);
    };
    const bool wide = y.c > 96 && blocks_for(y.c, 128) * 2 == blocks_for(y.c, 64);  // no half of a tile of 128 would be idle
    if (y.c <= 32) {
      fills_device<128, 32>(y, g) ? tile.template operator()<128, 32>() : tile.template operator()<64, 32>();
    } else if (wide && fills_device<128, 128>(y, g)) {
      tile.template operator()<128, 128>();
    } else if (!fills_device<128, 64>(y, g)) {
      tile.template operator()<64, 64>();
    } else if (y.c > 64 && y.c <= 96) {
      tile.template operator()<128, 96>();
    } else {
      tile.template operator()<128, 64>();
    }
    return true;
  });
}

}  // namespace

bool conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue, ResultStats* stats) {
  using enum Kind;
  return (runs(kPatches) && patch_conv2d(x, w, y, p, epilogue, stats)) ||
         (runs(kStride2) && stride2_conv2d(x, w, y, p, epilogue, stats)) ||
         (runs(kDeep) && deep_conv2d(x, w, y, p, epilogue, stats)) ||
         (runs(kPointwise) && pointwise_conv2d(x, w, y, p, epilogue, stats)) ||
         (runs(kTiles) && tile_conv2d(x, w, y, p, epilogue, stats));
}

bool tile_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                 ResultStats* stats) {
  return run<true>("conv2d, wgmma", x, w, y, {false, size32(p.stride), size32(p.pad)}, epilogue, stats);
}

bool conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  using enum Kind;
  if (runs(kPatches) && patch_conv2d_backward_data(dy, w, dx, p, adding_to(dx, accumulate))) return true;
  if (runs(kStride2) && stride2_conv2d_backward_data(dy, w, dx, p, accumulate)) return true;
  if (runs(kDeep) && deep_conv2d_backward_data(dy, w, dx, p, adding_to(dx, accumulate))) return true;
  if (runs(kPointwise) && pointwise_conv2d_backward_data(dy, w, dx, p, adding_to(dx, accumulate))) return true;
  return runs(kTiles) && run<false>("conv2d_backward_data, wgmma", dy, w, dx, {true, size32(p.stride), size32(p.pad)},
                                    adding_to(dx, accumulate));
}

bool conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  return runs(Kind::kTiles) && run<true>("conv_transpose2x2, wgmma", x, w, y, {true, 2, 0}, {.bias = bias});
}

bool conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  return runs(Kind::kTiles) &&
         run<false>("conv_transpose2x2_backward_data, wgmma", dy, w, dx, {false, 2, 0}, adding_to(dx, accumulate));
}

}  // namespace tessera::cuda::wgmma
