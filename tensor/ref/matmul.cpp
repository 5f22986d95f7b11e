#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

void RefBackend::matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  ref::for_floating(c.t, [&]<class T>() {
    for (int64_t n = 0; n < c.batch; ++n) {
      for (int64_t i = 0; i < c.rows; ++i) {
        for (int64_t j = 0; j < c.cols; ++j) {
          const T* left = data<T>(a) + n * a.batch_stride + i * a.row_stride;
          const T* right = data<T>(b) + n * b.batch_stride + j * b.col_stride;
          double sum = 0;
          for (int64_t k = 0; k < a.cols; ++k) sum += ref::load(left[k * a.col_stride]) * ref::load(right[k * b.row_stride]);
          ref::put(data<T>(c)[n * c.batch_stride + i * c.row_stride + j * c.col_stride], sum, accumulate);
        }
      }
    }
  });
}

}  // namespace tessera
