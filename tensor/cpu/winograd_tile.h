// The transforms of Winograd's minimal filtering F(4x4, 3x3), vectorised over channels. Plain structs of pointers;
// winograd_tile.cpp compiles them once per CPU target. Images and filters hold f32 or bf16; transformed values are f32.
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
#pragma once

#include <cstdint>

namespace tessera::cpu {

constexpr int64_t kWinogradTile = 4;                             // outputs of a tile, per axis
constexpr int64_t kWinogradWindow = 6;                           // inputs of a tile, per axis
constexpr int64_t kFrequencies = kWinogradWindow * kWinogradWindow;

// A rectangle of pixels: value (row r, column c, channel i) at p[r * row + c * pixel + i].
template <class T>
struct PixelBlock {
  T* p = nullptr;
  int64_t row = 0, pixel = 0;
};

// The end of a convolution: y (+)= act(A^T m A + bias) + residual, for the first `rows` x `columns` pixels of the tile.
template <class T>
struct WinogradOutput {
  const float* m = nullptr;  // m[f * plane + c], zero-padded to whole vectors
  int64_t plane = 0;
  PixelBlock<T> y;
  PixelBlock<const T> residual;  // p null: none
  int64_t rows = kWinogradTile, columns = kWinogradTile, channels = 0;
  const float* bias = nullptr;  // whole vectors, or null
  bool silu = false, accumulate = false;
};

// The kernels of the CPU target that runs now. "To whole vectors": up to the next multiple of the vector's lanes, zeros are written.
template <class T>
struct WinogradKernels {
  int64_t lanes;
  // v[f * plane + i] = (B^T d B)[f] of the 6x6 window d, to whole vectors.
  void (*input)(PixelBlock<const T> d, int64_t channels, float* v, int64_t plane);
  void (*output)(const WinogradOutput<T>& job);
  // v[f * plane + o] = (A dy A^T)[f] of the 4x4 tile dy, to whole vectors.
  void (*gradient)(PixelBlock<const T> dy, int64_t channels, float* v, int64_t plane);
  // u[f * plane + c] = (G g G^T)[f], to whole vectors; element (r, t) of channel c is g[(r * 3 + t) * tap_step + c], or with `flipped`
  // that of (2 - r, 2 - t).
  void (*filter)(const T* g, int64_t tap_step, bool flipped, int64_t channels, float* u, int64_t plane);
  // dg[(r * 3 + t) * tap_step + c] (+)= (G^T u G)[r, t], u as above.
  void (*filter_gradient)(const float* u, int64_t plane, int64_t channels, float* dg, int64_t tap_step, bool accumulate);
};
template <class T>
WinogradKernels<T> winograd_kernels();

}  // namespace tessera::cpu
