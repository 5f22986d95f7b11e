// Launches the kernels of a filter's gradient as a matrix product (cuda/device/weight_kernel.cuh).
#pragma once

#include <algorithm>

#include "cuda/conv.h"
#include "cuda/device/weight_kernel.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda {

// dw[row, tap, channel] (+)= sum over pixels of `plain` of plain[pixel, row] * image[pixel at tap, channel].
struct WeightProduct {
  ImageView plain, image;
  FilterView dw;
  FilterTaps taps;
  FilterLayout layout;
  bool accumulate;

  bool reads_packs() const { return in_packs(plain) && in_packs(image); }
};

inline WeightProduct weight_product_of(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p,
                                       bool accumulate) {
  const int kh = size32(dw.kh), kw = size32(dw.kw), in = size32(dw.i);
  return {dy, x, dw, {kh, kw, size32(p.stride), size32(p.pad)}, {kh * kw * in, in, 1}, accumulate};
}
// Of the transposed convolution. The roles change: x is read pixel by pixel and dy under the taps, so rows are inputs and columns
// (a, b, output).
inline WeightProduct transposed_weight_product_of(const ImageView& x, const ImageView& dy, const FilterView& dw, bool accumulate) {
  const int in = size32(dw.i);
  return {x, dy, dw, {size32(dw.kh), size32(dw.kw), 2, 0}, {1, in, 4 * in}, accumulate};
}

// Split-K: a filter has few tiles and each sums over all pixels, so the pixels are cut into chunks that blocks work on side by
// side. launch(grid, pixels of a chunk, partial sums), then the sum over the chunks.
template <class TileT, class Launch>
void launch_weight(const WeightProduct& p, Launch&& launch) {
  const int pixels = size32(p.plain.n * p.plain.h * p.plain.w);
  const int tiles =
      size32(int64_t(blocks_for(p.plain.c, TileT::kRows)) * blocks_for(int64_t(p.taps.kh) * p.taps.kw * p.image.c, TileT::kCols));
  constexpr int kLeastPixels = 256;  // of a chunk: with fewer the tile costs more to store than to compute
  // With more blocks than keep a device busy, adding the chunks costs more than it gains.
  const int chunks = int(std::clamp<int64_t>(enough_blocks() / std::max(1, tiles), 1, std::max(1, pixels / kLeastPixels)));
  constexpr int kWholePixels = std::max(32, TileT::kDepth);  // a chunk ends with a step of the product
  const int per_chunk = ((pixels + chunks - 1) / chunks + kWholePixels - 1) / kWholePixels * kWholePixels;
  const Scratch<float> partial(int64_t(chunks) * p.dw.o * p.dw.kh * p.dw.kw * p.dw.i);
  launch(early({dim3(unsigned(tiles), unsigned(chunks)), dim3(kTileThreads)}), per_chunk, partial.get());
  tiled::add_filter_chunks(partial, chunks, p.dw, p.accumulate);
}

// For products that read packs. kOneTap: of a 1 x 1 filter.
template <class TileT, class T, bool kOneTap>
void launch_weight_ahead(const char* name, const WeightProduct& p, Grid grid, int per_chunk, float* partial) {
  grid.shared_bytes = TileT::kStages * sizeof(Stage<TileT>);
  launch(name, grid, weight_ahead_kernel<TileT, T, kOneTap>, images_of<const T>(p.plain), images_of<const T>(p.image), p.taps,
         per_chunk, p.layout, partial);
}

}  // namespace tessera::cuda
