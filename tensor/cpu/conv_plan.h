// The common form of convolution, its data gradient and the transposed convolution: several small stride-s convolutions ("parts")
// that read the same image and write interleaved grids of the output, over weights packed for the register tile.
#pragma once

#include <vector>

#include "tensor/cpu/channel_moments.h"
#include "tensor/cpu/conv_scratch.h"
#include "tensor/cpu/conv_tile.h"
#include "tensor/cpu/past_caches.h"
#include "tensor/ops/conv.h"
#include "tensor/views.h"

namespace tessera::cpu {

// Output channels cut into groups of a few vectors; `start` is the first channel.
struct ChannelGroup {
  int64_t start, channels;
  int vectors;
};
std::vector<ChannelGroup> channel_groups(int64_t channels, const TileShape& tile);

// Part of a plan: out grid point (j, i) = sum over (r, t, c) of x[j*stride + row + r, i*stride + column + t, c] * w[r, t, c, :],
// stored at the output pixel (out_row + j*out_step, out_column + i*out_step).
template <class T>
struct ConvPart {
  int64_t kh, kw;
  int64_t row, column;
  int64_t out_row, out_column;
  int64_t rows, columns;  // of the grid
  const T* weights;       // groups one after the other, each as RowJob::w, with C rounded up to whole sums
};

template <class T>
struct ConvPlan {
  ImageView x;
  ImageView y;
  int64_t stride = 1;
  int64_t out_step = 1;
  std::vector<ConvPart<T>> parts;
  RowJob<T> epilogue;  // bias (padded to whole vectors for every group), silu, residual, accumulate
  std::vector<ChannelGroup> groups;
  TileKernels<T> kernels;
  ChannelMoments* moments = nullptr;  // where not null, gathers those of y; for plans of one part
};

// Whether kernels that store vectors of `lanes` values of T write y past the caches, if they neither add to it nor read it back
// at once. A vector has to be a line: nothing merges parts of one that come apart in time.
template <class T>
bool writes_past_caches(const ImageView& y, int64_t lanes) {
  return lanes == kLine<T> && y.n * y.h * y.w * y.c * int64_t(sizeof(T)) >= kStreamBytes &&
         reinterpret_cast<uintptr_t>(y.p) % kLineBytes == 0 && y.pitch % lanes == 0 && y.c % lanes == 0;
}

// Runs the plan on the threads of the pool.
template <class T>
void run(const ConvPlan<T>& plan);
// What a thread copies of the images x at a time, at most.
template <class T>
int64_t most_band_bytes(const ImageView& x, int64_t kh, int64_t kw, int64_t stride);

// y[p, c] (+)= epilogue of sum_k a[p, k] * w[k, c] for rows of a and y with free pitch: 1x1 convolution and matrix product.
template <class T>
struct RowsProduct {
  const T* a;
  int64_t a_pitch, rows, depth;  // depth: whole sums
  const T* weights;              // groups one after the other, each as RowJob::w
  T* y;
  int64_t y_pitch;
  RowJob<T> epilogue;
  ChannelMoments* moments = nullptr;  // where not null, gathers those of y
};
template <class T>
void run(const RowsProduct<T>& product, const std::vector<ChannelGroup>& groups, const TileKernels<T>& kernels);

// Packed weights per unit of depth, before each group and all together.
std::vector<int64_t> packed_starts(const std::vector<ChannelGroup>& groups, const TileShape& tile);
int64_t packed_width(const std::vector<ChannelGroup>& groups, const TileShape& tile);

// out[i] (+)= partial[i] + partial[size + i] + ..., in this order: the parts of a filter's gradient.
void add_partials(const float* partial, int64_t parts, int64_t size, float* out, bool accumulate);

// Of the direct kernels of conv2d_backward_weight, but for copies of what is multiplied as f32.
ConvScratch backward_weight_scratch(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p);

// Per-channel values padded with zeros to the packed width.
void pad_bias(const float* bias, const std::vector<ChannelGroup>& groups, const TileShape& tile, float* out);

}  // namespace tessera::cpu
