// Batched matrix product.
#pragma once

#include "tensor/tensor.h"

namespace tessera {

class MatmulOps {
 public:
  virtual ~MatmulOps() = default;
  // c (+)= a b for each matrix of the batch; a is (rows, k), b (k, cols), c (rows, cols), any strides; batch stride 0 broadcasts a or b.
  virtual void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) = 0;
};

namespace ops {
// a (..., m, k) times b (..., k, n), rank 2 or 3, with optional transposition of the last two axes of either.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false);
}  // namespace ops

}  // namespace tessera
