// The plain structs that kernels receive: a pointer, sizes and pitches. They own nothing and are trivially copyable, so a kernel
// can be tested alone and a device compiler sees a small header. Pitches and strides count elements, not bytes.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace tessera {

// Any strided tensor; stride 0 repeats (broadcast).
struct StridedView {
  void* p;
  DType t;
  Shape shape;
  Strides strides;
};

// rows x cols, columns adjacent, `pitch` elements from row to row (pitch >= cols). Channel slices of NHWC images are this.
struct RowsView {
  void* p;
  DType t;
  int64_t rows, cols, pitch;
};

// Images (N, H, W, C): channels adjacent, `pitch` elements from pixel to pixel, pixels dense: the pixel (n, y, x) is row
// (n * h + y) * w + x of the RowsView of the same memory.
struct ImageView {
  void* p;
  DType t;
  int64_t n, h, w, c, pitch;
  RowsView rows() const { return {p, t, n * h * w, c, pitch}; }
};

// Convolution filters (O, kH, kW, I), dense.
struct FilterView {
  void* p;
  DType t;
  int64_t o, kh, kw, i;
  const void* packed = nullptr;  // the same by ConvOps::pack_filter; p may be null then
};

// A batch of matrices with free row and column strides, so that a transpose is a swap.
struct MatrixView {
  void* p;
  DType t;
  int64_t batch, rows, cols;
  int64_t batch_stride, row_stride, col_stride;
};

template <class T, class View>
T* data(const View& v) {
  return static_cast<T*>(v.p);
}

}  // namespace tessera
