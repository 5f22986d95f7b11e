// The implementations of convolution and matrix product, with the contracts of tensor/ops/:
//   naive   one thread for each number of the result, the formula as a loop. To learn from, and to compare with.
//   tiled   blocks compute tiles of a matrix product out of shared memory.
//   wgmma   tiled, but in 16 bits on sm_90 by its warpgroup instructions. What runs by default.
//   vendor  cuDNN and cuBLASLt (cuda/conv_vendor.h), and wgmma for what they refuse.
#pragma once

#include <string_view>

#include "cuda/context.h"
#include "tensor/backend.h"

namespace tessera::cuda {

enum class ConvKernels : uint8_t { kNaive, kTiled, kVendor, kWgmma };

ConvKernels conv_kernels();                  // of layers without a choice of their own; at first what tensor/conv_choice.h says
void set_conv_kernels(ConvKernels kernels);  // for tests

// Statistics of a convolution's result (cuda/device/batch_stats.cuh), of the numbers as they are stored: what batch norm would read
// the result for. Some kernels form them while they still hold the result; it then has no bias, activation or residual.
class ResultStats;

// conv2d of tensor/ops/conv.h. `stats` may be null.
void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue, ResultStats* stats);

// The number of blocks of large tiles that keeps a device busy. A convolution that would have fewer gets smaller tiles; a filter's
// gradient, which has few tiles, is cut into chunks of pixels until it has about as many. The same on every device: how often a sum
// is cut decides its bits.
int64_t enough_blocks();
void set_enough_blocks(int64_t blocks);  // for tests

// Whether the pixels can be moved in packs of 16 bytes that end where the channels do.
bool in_packs(const ImageView& v);

namespace naive {
void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue);
void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate);
void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate);
void bias_backward(RowsView dy, void* dbias, bool accumulate);
void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias);
void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate);
void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate);
void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate);
}  // namespace naive

namespace tiled {
void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue,
            ResultStats* stats = nullptr);
void conv2d_wide(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue);  // y f32
void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate);
void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate);
// Tiles of pixels in chunks of equal length: at most `most` of them, as many as have a tile, and one where there are no tiles.
struct TileChunks {
  int count, tiles_each;
};
TileChunks tile_chunks(int tiles, int64_t most);
// dw (+)= the sum of `chunks` filters that lie one after the other, in a fixed order.
void add_filter_chunks(const Scratch<float>& partial, int chunks, const FilterView& dw, bool accumulate);
void bias_backward(RowsView dy, void* dbias, bool accumulate);
void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias);
void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate);
void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate);
void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate);
}  // namespace tiled

namespace stem {
// The first convolution of a network. False, and nothing done: x is not an input image, or the filter not that of a stem (three
// channels, 3 x 3, stride 2, 16 bits).
bool conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue, ResultStats* stats);
bool conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate);
}  // namespace stem

namespace wgmma {
// Kinds of kernels, one for each file. A shape that a kind does not take, or that is left out, goes to the next kind: leaving some
// out shows which of them gives a wrong result or never ends.
enum class Kind : uint8_t { kPatches, kDeep, kStride2, kPointwise, kTiles, kFilters };
bool runs(Kind kind);
// Names with commas between: patches, deep, stride2, pointwise, tiles, filters. At first what TESSERA_CUDA_WITHOUT says.
// Error(kUsage): a name that is none.
void leave_out(std::string_view kinds);

// Each of these returns false, and has done nothing, where it does not take the device, the type or the shape.
bool conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue, ResultStats* stats);
bool conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate);
bool conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate);
bool conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias);
bool conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate);
bool conv_transpose2x2_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, bool accumulate);
// What the above try in turn, from the most special to the most general: patches of few channels, of stride 2, of many channels
// (deep), 1 x 1, and tiles of the matrix of windows, which take any filter.
bool tile_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                 ResultStats* stats = nullptr);
bool patch_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                  ResultStats* stats = nullptr);
bool patch_conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p,
                                const ConvEpilogue& epilogue);
bool deep_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                 ResultStats* stats = nullptr);
bool deep_conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p,
                               const ConvEpilogue& epilogue);
bool pointwise_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p,
                      const ConvEpilogue& epilogue, ResultStats* stats = nullptr);
bool pointwise_conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p,
                                    const ConvEpilogue& epilogue);
bool stride2_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                    ResultStats* stats = nullptr);
bool stride2_conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p,
                                  bool accumulate);
bool tile_conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p,
                                 bool accumulate);
bool patch_conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p,
                                  bool accumulate);
bool stride2_conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p,
                                    bool accumulate);
}  // namespace wgmma

}  // namespace tessera::cuda
