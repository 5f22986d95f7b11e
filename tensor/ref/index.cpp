#include <algorithm>

#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

void RefBackend::gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) {
  ref::for_any(y.t, [&]<class T>() {
    for (int64_t r = 0; r < y.rows; ++r) {
      std::fill(ref::row<T>(y, r), ref::row<T>(y, r) + y.cols, T{});
      for (size_t t = 0; t < tables.size(); ++t) {
        const int64_t from = index[int64_t(t) * y.rows + r];
        if (from < 0) continue;
        const T* in = ref::row<T>(tables[t], from);
        std::copy(in, in + y.cols, ref::row<T>(y, r));
      }
    }
  });
}

void RefBackend::scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) {
  ref::for_floating(x.t, [&]<class T>() {
    for (size_t t = 0; t < tables.size(); ++t) {
      for (int64_t r = 0; r < x.rows; ++r) {
        const int64_t to = index[int64_t(t) * x.rows + r];
        if (to < 0) continue;
        for (int64_t c = 0; c < x.cols; ++c) {
          ref::put(ref::row<T>(tables[t], to)[c], ref::load(ref::row<T>(x, r)[c]), /*accumulate=*/true);
        }
      }
    }
  });
}

}  // namespace tessera
