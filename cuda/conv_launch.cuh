// Launches the kernel of convolution as a matrix product (cuda/device/conv_kernel.cuh).
#pragma once

#include <algorithm>

#include "cuda/conv.h"
#include "cuda/device/conv_kernel.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda {

// Blocks for tiles of kRows pixels x kCols channels; one plane of the grid for each class of pixels.
template <int kRows, int kCols>
dim3 conv_blocks(const ImageView& y, const Geometry& g) {
  const int64_t step = g.spread ? g.stride : 1;
  const int64_t rows = y.n * ((y.h + step - 1) / step) * ((y.w + step - 1) / step);  // of the largest class
  const int64_t tiles = int64_t(blocks_for(rows, kRows)) * blocks_for(y.c, kCols);
  return {blocks_for(tiles, 1), 1, unsigned(step * step)};
}

// Whether tiles of this size keep a large device busy; if not, smaller ones leave fewer multiprocessors idle. A tile of 128 columns
// counts twice: it does the work of two of 64.
template <int kRows, int kCols>
bool fills_device(const ImageView& y, const Geometry& g) {
  constexpr int64_t kWorth = kCols == 128 ? 2 : 1;
  const dim3 blocks = conv_blocks<kRows, kCols>(y, g);
  return int64_t(blocks.x) * blocks.z * kWorth >= enough_blocks();
}

// f.operator()<T>() for a type of 16 bits; of any other, false.
template <class F>
bool for_16_bits(DType type, F&& f) {
  switch (type) {
    case DType::kBF16: return f.template operator()<BFloat16>();
    case DType::kF16: return f.template operator()<Half>();
    default: return false;
  }
}

// The warpgroup instructions (wgmma) exist on compute capability 9.0 alone, neither before nor after it.
inline bool has_wgmma() { return device().major == 9; }

// Whether the convolution has a filter of kernel x kernel at this stride, with the padding that centres it on its pixel.
inline bool is_square(const FilterView& w, const ConvParams& p, int64_t kernel, int64_t stride) {
  return w.kh == kernel && w.kw == kernel && p.stride == stride && p.pad == kernel / 2;
}

// Persistent blocks: no more than the device holds at a time, each of which goes through every n-th of the `tiles`. They are that
// many for each of `col_tiles` tiles of channels; a multiprocessor holds `resident` of them.
inline unsigned persistent_blocks(int64_t tiles, int64_t col_tiles, int resident = 1) {
  return unsigned(std::min(tiles, std::max<int64_t>(1, int64_t(device().multiprocessors) * resident / col_tiles)));
}

// Of operands for which in_packs() holds. Out: the type of y and of what is added to it. `stats` may be null; only a gather, which
// has its pixels in order, may be asked for them.
template <class TileT, class T, bool kFilterAlongK, class Out = T>
void launch_conv_ahead(const char* name, const ImageView& x, const FilterView& w, const ImageView& y, const Geometry& g,
                       const ConvEpilogue& epilogue, ResultStats* stats) {
  constexpr size_t kBytes = std::max(TileT::kStages * sizeof(Stage<TileT>), sizeof(SumsOf<TileT>));
  launch(name, early({conv_blocks<TileT::kRows, TileT::kCols>(y, g), dim3(kTileThreads), kBytes}),
         conv_ahead_kernel<TileT, T, kFilterAlongK, Out>, images_of<const T>(x), filters_of<const T>(w), images_of<Out>(y), g,
         static_cast<const float*>(epilogue.bias), epilogue.activation, images_of<const Out>(epilogue.residual),
         chunks_of(kFormsStats<TileT> ? stats : nullptr, blocks_for(y.n * y.h * y.w, TileT::kRows), y.c));
}

// A gradient is added to what is there by reading that as the residual.
inline ConvEpilogue adding_to(const ImageView& dx, bool accumulate) {
  ConvEpilogue e;
  if (accumulate) e.residual = dx;
  return e;
}

}  // namespace tessera::cuda
