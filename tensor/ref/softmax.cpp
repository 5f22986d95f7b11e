#include <algorithm>
#include <cmath>

#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

void RefBackend::softmax(RowsView x, RowsView y, bool log) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t r = 0; r < x.rows; ++r) {
      const T* in = ref::row<T>(x, r);
      T* out = ref::row<T>(y, r);
      double largest = ref::load(in[0]);
      for (int64_t c = 1; c < x.cols; ++c) largest = std::max(largest, ref::load(in[c]));
      double sum = 0;
      for (int64_t c = 0; c < x.cols; ++c) sum += std::exp(ref::load(in[c]) - largest);
      for (int64_t c = 0; c < x.cols; ++c) {
        const double shifted = ref::load(in[c]) - largest;
        out[c] = ref::rounded<T>(log ? shifted - std::log(sum) : std::exp(shifted) / sum);
      }
    }
  });
}

void RefBackend::softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) {
  ref::for_floating(y.t, [&]<class T>() {
    for (int64_t r = 0; r < y.rows; ++r) {
      const T* result = ref::row<T>(y, r);
      const T* gradient = ref::row<T>(dy, r);
      double sum = 0;
      for (int64_t c = 0; c < y.cols; ++c) sum += ref::load(gradient[c]) * (log ? 1.0 : ref::load(result[c]));
      for (int64_t c = 0; c < y.cols; ++c) {
        const double value = ref::load(result[c]);
        const double g = ref::load(gradient[c]);
        ref::row<T>(dx, r)[c] = ref::rounded<T>(log ? g - std::exp(value) * sum : value * (g - sum));
      }
    }
  });
}

}  // namespace tessera
