// Convolutions of narrow images as products of matrices. Rows shorter than a tile leave most of its registers empty and sums of
// filters in memory for a few pixels at a time; so the window of every output pixel is copied into a row of a matrix, and the
// pixels of all images are multiplied together. Sums keep the order of taps and channels; filter gradients have partitions of their
// own.
#pragma once

#include "tensor/views.h"

namespace tessera::cpu {

// Whether rows of so many columns of output are short enough for a kernel of so many taps; and for its filter's gradient.
bool takes_windows(int64_t columns, int64_t taps);
bool weights_take_windows(int64_t columns, int64_t taps);

// One row for each point (j, i) of a `rows` x `columns` grid of every image: kh x kw pixels of `depth` channels from
// (j*stride + row, i*stride + column) on, zero outside of the image and from x.c on.
struct Windows {
  int64_t kh, kw, row, column, stride, rows, columns;
};
template <class T>
void copy_windows(const ImageView& x, const Windows& windows, int64_t depth, T* out);

}  // namespace tessera::cpu
