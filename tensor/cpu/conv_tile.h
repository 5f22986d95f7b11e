// The inner loops of convolution and matrix product: one row of output pixels times one group of output channels, and the weight
// gradient of one block. Plain structs of pointers; conv_tile.cpp and conv_weight_tile.cpp compile them once per CPU target.
#pragma once

#include <cstdint>

namespace tessera::cpu {

// Memory that a later job reads: fetched into L2 between the tiles of this one. Copying a band costs next to nothing when its
// source is in L2, and several per cent of a convolution when it is not.
struct Ahead {
  const float* p = nullptr;
  int64_t pixels = 0, channels = 0, pitch = 0;
};

// y[p, c] (+)= bias[c] + sum over r < kernel_rows, t < taps, k < run of a[p * a_step + r * a_row + t * a_tap + k] * w[r, t, k, c],
// then activation and residual, for p < pixels and c < channels. Where pixels are dense, one kernel row is a single tap: a run of
// kx and channels.
struct RowJob {
  const float* a = nullptr;
  int64_t a_step = 0, a_row = 0, a_tap = 0;  // elements from output pixel to output pixel, from kernel row to row, from tap to tap
  int64_t kernel_rows = 1, taps = 1, run = 0;
  bool next_tile_ahead = false;  // fetch the input of the next tile, because nobody has read a before
  Ahead ahead;
  const float* w = nullptr;  // packed [kernel_rows][taps][run][vectors * lanes], 64-byte aligned, zero beyond `channels`
  int vectors = 1;           // 1 .. max_vectors
  int64_t channels = 0;      // valid ones of vectors * lanes; only the last vector may be partial
  float* y = nullptr;
  int64_t y_step = 0, pixels = 0;
  bool accumulate = false;      // add to what y holds (then no activation)
  const float* bias = nullptr;  // vectors * lanes values, or null
  bool silu = false;
  const float* residual = nullptr;
  int64_t residual_step = 0;
};

// dw[o * dw_step + q] (+)= sum over y < rows, p < pixels of d[(y * d_row + p * d_step) + o] * x[y * x_row + p * x_step + q],
// for o < outputs and q < run. Reads x up to the next multiple of the vector length beyond `run`.
struct WeightJob {
  const float* x = nullptr;
  int64_t x_row = 0, x_step = 0;
  const float* d = nullptr;
  int64_t d_row = 0, d_step = 0;
  int64_t rows = 0, pixels = 0, outputs = 0, run = 0;
  float* dw = nullptr;
  int64_t dw_step = 0;
  bool accumulate = false;
  // What the next job will read, fetched during this one: for every pixel, the cache lines that start at x + x_ahead and
  // d + d_ahead. Each tile of the job fetches at most one line of either.
  int64_t x_ahead = 0, x_ahead_lines = 0;
  int64_t d_ahead = 0, d_ahead_lines = 0;
};

// The kernels of the CPU target that runs now.
struct TileKernels {
  int64_t lanes;    // floats per vector
  int max_vectors;  // of RowJob
  void (*row)(const RowJob&);
  void (*weight)(const WeightJob&);
  // dst[k * width + c] = c < columns ? src[c * column_step + k * k_step] : 0, for k < depth and c < width
  void (*pack)(float* dst, int64_t width, const float* src, int64_t column_step, int64_t k_step, int64_t columns, int64_t depth);
};
TileKernels tile_kernels();

}  // namespace tessera::cpu
