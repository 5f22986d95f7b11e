// Gradients of filters in f32, read from images as they lie.
//
// Note [Gradients in place]: under tap ky, the outputs of a row whose windows lie inside the image read a row of x as it lies. Rows
// outside the image are left out. Many channels, and pixels with a pitch, are summed tap by tap, each over the columns under which
// it lies inside; of the largest filters each task takes a single tap of some input channels, since a line of x serves only as many
// products as the task has outputs. Few channels of dense pixels fill vectors better as a run of kx and channels: there the windows
// of the first and last columns are copied, with zeros, and summed as whole filters; images too narrow for that copy the whole band
// instead, and so do runs of no whole vectors, behind which the tile would read.
#pragma once

#include <algorithm>

#include "tensor/cpu/conv_tile.h"
#include "tensor/ops/conv.h"
#include "tensor/views.h"

namespace tessera::cpu {

inline constexpr int64_t kTapwisePairs = 384 * 384;  // of channels, from which on taps are shared out

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};
// Part `i` of `parts` of [0, size), cut at multiples of `unit`.
inline Range share(int64_t size, int64_t parts, int64_t i, int64_t unit = 1) {
  const int64_t units = (size + unit - 1) / unit;
  return {std::min(size, i * units / parts * unit), std::min(size, (i + 1) * units / parts * unit)};
}

// What a task of conv2d_backward_weight works on.
template <class T>
struct WeightGradient {
  TileKernels<T> k;
  ImageView x, dy;
  FilterView dw;
  ConvParams p;
};

class InPlaceGradient {
 public:
  explicit InPlaceGradient(const WeightGradient<float>& g);
  bool pays() const;
  bool by_tap() const { return by_tap_; }  // then taps and input channels can be shared out
  // Values that a task of so many outputs copies at a time, at most.
  int64_t scratch(int64_t outputs) const;
  // Sums the output rows `at` (counted over all images) for the output channels `o` into `out`, laid out as dw: the whole filter,
  // or by tap its taps `taps` (counted over its rows) of the input channels `q`.
  void sum_rows(Range at, Range o, float* out, bool accumulate) const {
    sum_rows(at, o, {0, g_.dw.kh * taps_of_row_}, {0, run_}, out, accumulate);
  }
  void sum_rows(Range at, Range o, Range taps, Range q, float* out, bool accumulate) const;

 private:
  Range columns_under(int64_t tap) const;  // columns of output under which a tap, or the run of all, lies inside the image
  bool copies_dy() const;
  // What a job reads of `rows` rows of output under a tap that lies on row y and `column` of image n first.
  Ahead under_tap(int64_t n, int64_t y, int64_t column, int64_t rows, Range q) const;
  void sum_outer_windows(int64_t n, int64_t y, int64_t rows, Range o, float* out) const;

  WeightGradient<float> g_;
  bool by_tap_;
  int64_t run_, taps_of_row_;  // of a row of the kernel: values that are read together, and how many times
  Range columns_;       // of output that read x in place: all, or those of a run
  int64_t window_;      // values of a copied window
  int64_t most_;        // rows of windows at a time
  int64_t most_rows_;   // of a job
};

}  // namespace tessera::cpu
