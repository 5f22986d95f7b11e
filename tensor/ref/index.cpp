#include <algorithm>

#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

void RefBackend::gather_rows(RowsView x, const int64_t* index, RowsView y) {
  ref::for_any(x.t, [&]<class T>() {
    for (int64_t r = 0; r < y.rows; ++r) {
      if (index[r] < 0) continue;
      const T* in = ref::row<T>(x, index[r]);
      std::copy(in, in + x.cols, ref::row<T>(y, r));
    }
  });
}

void RefBackend::scatter_add_rows(RowsView x, const int64_t* index, RowsView y) {
  ref::for_floating(x.t, [&]<class T>() {
    for (int64_t r = 0; r < x.rows; ++r) {
      if (index[r] < 0) continue;
      for (int64_t c = 0; c < x.cols; ++c) {
        ref::put(ref::row<T>(y, index[r])[c], ref::load(ref::row<T>(x, r)[c]), /*accumulate=*/true);
      }
    }
  });
}

}  // namespace tessera
