// The transforms of Winograd's minimal filtering for 3x3 filters with stride 1 and 2, vectorised over channels. Plain structs of
// pointers; winograd_tile.cpp compiles them once per CPU target. Images and filters hold f32 or bf16; transformed values are f32.
//
// Note [Winograd]: a 3x3 filter g over a 6x6 window d gives a 4x4 tile of outputs, 144 multiplications for each pair of channels.
// Taken as polynomials that are evaluated at six points, it is
//
//   y = A^T [ (G g G^T) * (B^T d B) ] A,
//
// where * multiplies element by element: 36 multiplications, a quarter. A sum over input channels goes between the brackets, so
// each of the 36 elements ("frequencies") is a matrix product over channels of its own. Both gradients have the same form: that of
// d is a convolution, that of g is G^T [ (A dy A^T) * (B^T d B) ] G. (Winograd, Arithmetic complexity of computations, 1980; Lavin
// and Gray, Fast algorithms for convolutional neural networks, 2016.)
//
// The points are 0, +-5/8, +-3/2 and infinity. A and B are exact in f32, and rounding errors are half of those of the usual
// 0, +-1, +-2: the standard deviation of a result's error is 7.6e-7 of that of the results for 64 channels, where the plain sum in
// f32 has 1.6e-7 (docs/adr/0012-winograd.md).
//
// Note [Winograd, stride 2]: along one axis a tile of four outputs meets nine inputs: those at 0, 2, 4, 6, 8 with the taps 0 and 2,
// which is a two-tap filter with stride 1, and those at 1, 3, 5, 7 with tap 1. The first take five products by F(4, 2), at the
// points
// +-1/2, +-3/2 and infinity, the others one each: 9 instead of 12, and in two axes 81 instead of 144. The five elements of the
// filter and tap 1 make six again, so a filter has 36; the four products of tap 1 share one. For padding 1 the data gradient
// comes in tiles of eight: those at 0, 2, 4, 6 are products of tap 1, the others the two-tap filter over five elements of dy.
// The error is that of the plain sum.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tessera::cpu {

constexpr int64_t kFilterPoints = 6;  // elements of a transformed filter, per axis
constexpr int64_t kFrequencies = kFilterPoints * kFilterPoints;

// What a tile takes and gives, per axis.
struct WinogradForm {
  int64_t inputs, input_step;  // pixels of a window; from the first of one tile's to that of the next tile's
  int64_t outputs;             // pixels of a tile
  int64_t points;  // products for each pair of channels; those from kFilterPoints - 1 on are with one element of the filter
  constexpr int64_t products() const { return points * points; }
  // How many products of a tile are with an element of the filter, of one axis and of both; and how many of both are before them.
  constexpr int64_t sharing_of_axis(int64_t element) const { return element == kFilterPoints - 1 ? points - element : 1; }
  constexpr int64_t sharing(int64_t f) const { return sharing_of_axis(f / kFilterPoints) * sharing_of_axis(f % kFilterPoints); }
  constexpr int64_t before(int64_t f) const {
    return f / kFilterPoints * points + f % kFilterPoints * sharing_of_axis(f / kFilterPoints);
  }
};
constexpr WinogradForm kStride1Form{6, 4, 4, 6};      // both directions, and the filter's gradient
constexpr WinogradForm kStride2Form{9, 8, 4, 9};      // forward, and the filter's gradient
constexpr WinogradForm kStride2DataForm{5, 4, 8, 9};  // data gradient

// A rectangle of pixels: value (row r, column c, channel i) at p[r * row + c * pixel + i].
template <class T>
struct PixelBlock {
  T* p = nullptr;
  int64_t row = 0, pixel = 0;
};

// A square of pixels of which some may lie outside of the image, where it is zero: those of row r and column c are there if bit r
// of `rows` and bit c of `columns` are set.
template <class T>
struct PixelSquare {
  PixelBlock<const T> block;
  uint32_t rows = 0, columns = 0;
};

// The transformed values of a block of tiles: those with frequency f are the rows of a matrix, form.sharing(f) for each tile, which
// begins at p[form.before(f) * plane].
template <class F>
struct TransformedTiles {
  F* p = nullptr;
  int64_t plane = 0, pitch = 0;  // from row to row: pitch
};

// The end of a convolution: y (+)= act(A^T m A + bias) + residual, for the first `rows` x `columns` pixels of the tile. "Whole
// vectors": up to the next multiple of the vector's lanes.
template <class T>
struct WinogradOutput {
  TransformedTiles<const float> m;  // zero-padded to whole vectors
  int64_t tile = 0;                 // of the block
  PixelBlock<T> y;
  PixelBlock<const T> residual;  // p null: none
  int64_t rows = 0, columns = 0, channels = 0;
  const float* bias = nullptr;  // whole vectors, or null
  bool silu = false, accumulate = false;
};

// The kernels of a form on the CPU target that runs now. All write zeros up to whole vectors.
template <class T>
struct WinogradKernels {
  int64_t lanes;
  // Tile `tile` of v = B^T d B of the window d.
  void (*input)(const PixelSquare<T>& d, int64_t channels, const TransformedTiles<float>& v, int64_t tile);
  void (*output)(const WinogradOutput<T>& job);
  // The same of A dy A^T of the tile dy; null for kStride2DataForm.
  void (*gradient)(const PixelSquare<T>& dy, int64_t channels, const TransformedTiles<float>& v, int64_t tile);
  // u[f * plane + c] = (G g G^T)[f] for each frequency f; element (r, t) of channel c is g[(r * 3 + t) * tap_step + c], or with
  // `flipped` that of (2 - r, 2 - t).
  void (*filter)(const T* g, int64_t tap_step, bool flipped, int64_t channels, float* u, int64_t plane);
  // dg[(r * 3 + t) * tap_step + c] (+)= (G^T u G)[r, t], u as above.
  void (*filter_gradient)(const float* u, int64_t plane, int64_t channels, float* dg, int64_t tap_step, bool accumulate);
};
template <class T>
WinogradKernels<T> winograd_kernels(const WinogradForm& form);

}  // namespace tessera::cpu
