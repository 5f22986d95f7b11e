// The matrix product with one thread for each number of the result.
#include "cuda/conv.h"
#include "cuda/device/element.cuh"
#include "cuda/device/matrices.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda::naive {

namespace {

// c[n, i, j] (+)= sum over k of a[n, i, k] * b[n, k, j]
//
// One thread a result, the threads of a warp are neighbouring columns: a is one access for all, b and c are full lines where their
// columns are adjacent.
template <class T>
__global__ void __launch_bounds__(256) matmul_kernel(Matrices<const T> a, Matrices<const T> b, Matrices<T> c, bool accumulate) {
  int index = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= c.batch * c.rows * c.cols) return;
  const int col = index % c.cols;
  index /= c.cols;
  const int row = index % c.rows;
  const int n = index / c.rows;
  const T* left = a.at(n, row, 0);
  const T* right = b.at(n, 0, col);
  float sum = 0.0f;
  for (int k = 0; k < a.cols; ++k) {
    sum += load(*left) * load(*right);
    left += a.col_stride;
    right += b.row_stride;
  }
  put(*c.at(n, row, col), sum, accumulate);
}

}  // namespace

void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  for_floating("matmul", c.t, [&]<class T>() {
    launch("matmul naive", one_thread_each(size32(c.batch * c.rows * c.cols)), matmul_kernel<T>, matrices_of<const T>(a),
           matrices_of<const T>(b), matrices_of<T>(c), accumulate);
  });
}

}  // namespace tessera::cuda::naive
