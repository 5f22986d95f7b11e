// Matrix products of any strides as kernels see them.
#pragma once

#include "cuda/device/views.cuh"

namespace tessera::cuda {

// `batch` matrices; a transpose is a swap of the strides.
template <class T>
struct Matrices {
  T* p;
  int batch, rows, cols;
  int64_t batch_stride, row_stride, col_stride;
  __device__ T* at(int n, int row, int col) const { return p + n * batch_stride + row * row_stride + col * col_stride; }
};

template <class T>
Matrices<T> matrices_of(const MatrixView& v) {
  return {static_cast<T*>(v.p), size32(v.batch), size32(v.rows), size32(v.cols), v.batch_stride, v.row_stride, v.col_stride};
}

}  // namespace tessera::cuda
