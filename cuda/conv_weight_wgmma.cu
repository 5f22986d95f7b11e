// Gradients of filters in 16 bits on the warpgroup instructions of sm_90a: the kernel of conv_weight_tiled.cu with other tiles.
// Compiled for sm_90a and nothing else (cmake/cuda.cmake).
#include "cuda/conv_launch.cuh"
#include "cuda/conv_weight_launch.cuh"
#include "cuda/device/warpgroup.cuh"

namespace tessera::cuda::wgmma {

namespace {

// How many numbers all tiles of kRows x kCols read from L2 for one pixel. That traffic, not the arithmetic, bounds this kernel.
template <int kRows, int kCols>
int64_t numbers_read(int64_t rows, int64_t columns) {
  return int64_t(blocks_for(rows, kRows)) * blocks_for(columns, kCols) * (kRows + kCols);
}

bool run(const char* name, const WeightProduct& p) {
  if (!has_wgmma()) return false;
  const int64_t rows = p.plain.c, columns = int64_t(p.taps.kh) * p.taps.kw * p.image.c;  // of the filter's gradient as a matrix
  return for_16_bits(p.plain.t, [&]<class T>() {
    if (!p.reads_packs()) return false;
    auto tile = [&]<int kRows, int kCols>() {
      using TileT = WarpgroupTile<T, kRows, kCols, false, false>;
      launch_weight<TileT>(p, [&](const Grid& grid, int per_chunk, float* partial) {
        // A tile of 96 columns has panels of 128 (WarpgroupTile): there are kernels for it with one tap only.
        if constexpr (TileT::kRightWidth == kCols) {
          if (!p.taps.one()) return launch_weight_ahead<TileT, T, false>(name, p, grid, per_chunk, partial);
        }
        launch_weight_ahead<TileT, T, true>(name, p, grid, per_chunk, partial);
      });
    };
    // The tile that reads least; of equals the one considered first, which is the smaller.
    enum class Size { k64x64, k128x64, k64x128, k128x96, k128x128 } best = Size::k64x64;
    int64_t least = numbers_read<64, 64>(rows, columns);
    const auto consider = [&](Size size, int64_t numbers) {
      if (numbers < least) best = size, least = numbers;
    };
    consider(Size::k128x64, numbers_read<128, 64>(rows, columns));
    consider(Size::k64x128, numbers_read<64, 128>(rows, columns));
    if (p.taps.one()) consider(Size::k128x96, numbers_read<128, 96>(rows, columns));
    consider(Size::k128x128, numbers_read<128, 128>(rows, columns));
    switch (best) {
      case Size::k64x64: tile.template operator()<64, 64>(); break;
      case Size::k128x64: tile.template operator()<128, 64>(); break;
      case Size::k64x128: tile.template operator()<64, 128>(); break;
      case Size::k128x96: tile.template operator()<128, 96>(); break;
      case Size::k128x128: tile.template operator()<128, 128>(); break;
    }
    return true;
  });
}

}  // namespace

bool conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  using enum Kind;
  return (runs(kStride2) && stride2_conv2d_backward_weight(x, dy, dw, p, accumulate)) ||
         (runs(kPatches) && patch_conv2d_backward_weight(x, dy, dw, p, accumulate)) ||
         (runs(kFilters) && tile_conv2d_backward_weight(x, dy, dw, p, accumulate));
}

bool tile_conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p,
                                 bool accumulate) {
  return run("conv2d_backward_weight, wgmma", weight_product_of(x, dy, dw, p, accumulate));
}

bool conv_transpose2x2_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, bool accumulate) {
  return runs(Kind::kFilters) && run("conv_transpose2x2_backward_weight, wgmma", transposed_weight_product_of(x, dy, dw, accumulate));
}

}  // namespace tessera::cuda::wgmma
