// The inner loops of convolution and matrix product: one row of output pixels times one group of output channels, and the weight
// gradient of one block. Plain structs of pointers; conv_tile.cpp compiles them for f32 once per CPU target, conv_tile_bf16.cpp for
// bf16 where the CPU multiplies it.
//
// Note [Pairs]: a bf16 multiply-add takes two products at once, sum += a[0]*b[0] + a[1]*b[1], all sums in f32. So the two values
// must be neighbours: channels k and k+1 of a row of pixels, which they are, and of the packed weights; in the weight gradient,
// where the sum runs over pixels, one channel of two pixels, one above the other, which are brought together when they are copied.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/base/memory.h"
#include "tensor/dtype.h"

namespace tessera::cpu {

// Values of T that one multiply-add sums at once: depths and pixel counts are padded with zeros to a multiple of it.
template <class T>
inline constexpr int64_t kSummed = static_cast<int64_t>(sizeof(float) / sizeof(T));
template <class T>
constexpr int64_t whole_sums(int64_t n) {
  return (n + kSummed<T> - 1) / kSummed<T> * kSummed<T>;
}

constexpr int64_t kLineBytes = 64;
template <class T>
inline constexpr int64_t kLine = kLineBytes / static_cast<int64_t>(sizeof(T));  // values of a cache line

// Memory that a later job reads: fetched into L2 during this one. Copying a band costs next to nothing when its
// source is in L2, and several per cent of a convolution when it is not.
struct Ahead {
  const char* p = nullptr;
  int64_t pixels = 0, bytes = 0, pitch = 0;  // of each pixel, and from one to the next

  Ahead part(int64_t i, int64_t parts) const {
    const int64_t begin = i * pixels / parts;
    return {p + begin * pitch, (i + 1) * pixels / parts - begin, bytes, pitch};
  }
  void fetch() const {
    for (int64_t i = 0; i < pixels; ++i) {
      for (int64_t b = 0; b < bytes; b += kLineBytes) __builtin_prefetch(p + i * pitch + b, 0, 2);
    }
  }
};

// y[p, c] (+)= bias[c] + sum over r < kernel_rows, t < taps, k < run of a[p * a_step + r * a_row + t * a_tap + k] * w[r, t, k, c],
// then activation and residual, for p < pixels and c < channels. Where pixels are dense, one kernel row is a single tap: a run of
// kx and channels. Sums are f32 and rounded to T once.
template <class T>
struct RowJob {
  const T* a = nullptr;
  int64_t a_step = 0, a_row = 0, a_tap = 0;  // elements from output pixel to output pixel, from kernel row to row, from tap to tap
  int64_t kernel_rows = 1, taps = 1, run = 0;  // run: a multiple of kSummed
  bool next_tile_ahead = false;                // fetch the input of the next tile, because nobody has read a before
  bool second_tile_ahead = false;              // and into L2 that of the one after it
  Ahead ahead;
  // Packed [kernel_rows][taps][run / kSummed][vectors * lanes][kSummed], 64-byte aligned, zero beyond `channels`.
  const T* w = nullptr;
  int vectors = 1;       // 1 .. max_vectors
  int64_t channels = 0;  // valid ones of vectors * lanes; only the last vector may be partial
  T* y = nullptr;
  int64_t y_step = 0, pixels = 0;
  bool accumulate = false;      // add to what y holds (then no activation)
  bool past_caches = false;     // see writes_past_caches; then no accumulate, activation or residual
  const float* bias = nullptr;  // vectors * lanes values, or null
  bool silu = false;
  const T* residual = nullptr;
  int64_t residual_step = 0;
};

// Rows of output pixels, one below the other, by several groups of channels: jobs of the first row, which differ in what concerns
// their channels only. For units that want more work at a time than a row by a group; fetches ahead are those of the first job.
template <class T>
struct BandJob {
  std::span<const RowJob<T>> groups;
  int64_t rows = 1, a_next = 0, y_next = 0, residual_next = 0;  // elements from row to row
};

// A column of pairs (Note [Pairs]), at most kLine<BFloat16> channels wide: to[p * to_step + 2 * c + half] =
// (first, second)[half][p * step + c] for p < pairs. Writes whole lines: up to 2 * kLine values from each `to`.
struct PairColumn {
  const BFloat16* first = nullptr;
  const BFloat16* second = nullptr;
  int64_t step = 0;
  BFloat16* to = nullptr;
  int64_t to_step = 0;
  int64_t pairs = 0, channels = 0;
  int64_t ahead = 0;  // values from what is paired to what is fetched meanwhile
};

// dw[o * dw_step + q] (+)= sum over y < rows, p < pixels of d[(y * d_row + p * d_step) + o] * x[y * x_row + p * x_step + q],
// for o < outputs and q < run. Reads x up to the next multiple of the vector length beyond `run`. For bf16 a "pixel" is a pair:
// x and d hold [q][2] and [o][2] for each (Note [Pairs]).
template <class T>
struct WeightJob {
  const T* x = nullptr;
  int64_t x_row = 0, x_step = 0;
  const T* d = nullptr;
  int64_t d_row = 0, d_step = 0;
  int64_t rows = 0, pixels = 0, outputs = 0, run = 0;
  float* dw = nullptr;
  int64_t dw_step = 0;
  bool accumulate = false;
  Ahead x_ahead, d_ahead;  // f32: what the next job will read, fetched evenly during this one
  // bf16: what is paired during this job instead, a column by each tile: loads, turns and stores find room between multiply-adds.
  std::span<const PairColumn> columns_ahead;
};

// The same outputs against several rows of the kernel, for units that bring d into an order of their own: row i reads x at
// x_offsets[i] from job.x and sums into dw + i * dw_next.
template <class T>
struct WeightRows {
  WeightJob<T> job;
  std::span<const int64_t> x_offsets;
  int64_t dw_next = 0;
};

// Hands out the numbers 0 .. items-1 to `takers` takers, evenly spread and division-free; -1 to those that get none.
struct Spread {
  int64_t items, takers, sum = 0, item = 0;
  int64_t next() {
    sum += items;
    if (sum < takers || item >= items) return -1;
    sum -= takers;
    return item++;
  }
};

struct TileShape {
  int64_t lanes;            // floats per vector
  int max_vectors;          // of RowJob
  int64_t job_pixels = 96;  // of WeightJob, about: enough to hide loading and storing the sums, few enough for L1
  int64_t l1_ways = l1_cache_ways();
};

// The kernels of the CPU target that runs now.
template <class T>
struct TileKernels : TileShape {
  void (*row)(const RowJob<T>&);
  void (*weight)(const WeightJob<T>&);
  // dst[(k / kSummed * width + c) * kSummed + k % kSummed] = c < columns ? src[c * column_step + k * k_step] : 0, for k < depth
  // and c < width; zero up to a whole number of sums.
  void (*pack)(T* dst, int64_t width, const T* src, int64_t column_step, int64_t k_step, int64_t columns, int64_t depth);
  // dst[2 * i] = first[i], dst[2 * i + 1] = second[i] for i < count (bf16 only).
  void (*interleave)(T* dst, const T* first, const T* second, int64_t count);
  // The same for `pixels` pixels of either (bf16 only): dst[(p * channels + i) * 2 + half] = (first, second)[half][p * pitch + i].
  void (*pair_pixels)(T* dst, const T* first, const T* second, int64_t pitch, int64_t channels, int64_t pixels);
  void (*pair_column)(const PairColumn&);  // bf16 only
  // Of units that do better with more work at a time than a row of output or of the kernel; null elsewhere.
  void (*band)(const BandJob<T>&);
  void (*weight_rows)(const WeightRows<T>&);
};
template <class T>
TileKernels<T> tile_kernels();
template <>
TileKernels<float> tile_kernels<float>();
template <>
TileKernels<BFloat16> tile_kernels<BFloat16>();  // only where multiplies_bf16()

// Whether the CPU multiplies bf16 faster than f32 in the target that runs now: AVX-512-BF16 on AMD, AMX on Intel
// (tensor/cpu/amx.h). Without AMX not on Intel: its throughput is half that of f32 multiply-adds (measured on a Sapphire Rapids).
bool multiplies_bf16();

}  // namespace tessera::cpu
