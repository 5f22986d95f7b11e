// Gather and scatter of rows.
#include <algorithm>
#include <cstring>

#include "tensor/base/parallel.h"
#include "tensor/cpu/kernels.h"

namespace tessera::cpu {

namespace {
constexpr int64_t kGrain = 1 << 15;
}

void gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) {
  const auto size = int64_t(size_of(y.t));
  parallel_for(y.rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, y.cols)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::byte* const to = data<std::byte>(y) + i * y.pitch * size;
      bool there = false;
      for (size_t t = 0; t < tables.size(); ++t) {
        const int64_t row = index[int64_t(t) * y.rows + i];
        if (row < 0) continue;
        std::memcpy(to, data<const std::byte>(tables[t]) + row * tables[t].pitch * size, size_t(y.cols * size));
        there = true;
      }
      if (!there) std::memset(to, 0, size_t(y.cols * size));
    }
  });
}

namespace {
// Each part owns a range of the rows of y and goes through all of the index, so that repeated rows are summed in order of i.
template <class T>
void scatter_add_as(const RowsView& x, const int64_t* index, const RowsView& y) {
  const int64_t parts = std::clamp<int64_t>(x.rows * x.cols / kGrain, 1, 8);
  const int64_t share = (y.rows + parts - 1) / parts;
  parallel_chunks(parts, [&](int64_t part) {
    const int64_t begin = part * share;
    const int64_t end = begin + share;
    for (int64_t i = 0; i < x.rows; ++i) {
      if (index[i] < begin || index[i] >= end) continue;
      const T* from = data<const T>(x) + i * x.pitch;
      T* to = data<T>(y) + index[i] * y.pitch;
      for (int64_t c = 0; c < x.cols; ++c) to[c] = T(float(to[c]) + float(from[c]));
    }
  });
}
}  // namespace

void scatter_add_rows(RowsView x, const int64_t* index, RowsView y) {
  y.t == DType::kBF16 ? scatter_add_as<BFloat16>(x, index, y) : scatter_add_as<float>(x, index, y);
}

}  // namespace tessera::cpu
