// Strided views seen with as few dimensions as possible: sizes of 1 are dropped and neighbours that lie in memory as one are
// merged.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "tensor/views.h"

namespace tessera::cpu {

// kOperands views of one shape, walked together. Outermost dimension first; `rank` >= 1.
template <size_t kOperands>
struct JointShape {
  using Offsets = std::array<int64_t, kOperands>;

  // Views of the same shape (the caller has checked it).
  explicit JointShape(const std::array<const StridedView*, kOperands>& views) {
    const Shape& shape = views[0]->shape;
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == 1) continue;
      Offsets step;
      for (size_t k = 0; k < kOperands; ++k) step[k] = views[k]->strides[axis];
      push(shape[axis], step);
    }
    if (rank == 0) push(1, {});
  }

  int64_t inner() const { return size[size_t(rank - 1)]; }
  const Offsets& inner_stride() const { return stride[size_t(rank - 1)]; }
  int64_t outer() const {
    int64_t n = 1;
    for (int d = 0; d + 1 < rank; ++d) n *= size[size_t(d)];
    return n;
  }
  // Where the inner run number i of each operand begins.
  Offsets run(int64_t i) const {
    Offsets offset{};
    for (int d = rank - 2; d >= 0; --d) {
      const int64_t at = d == 0 ? i : i % size[size_t(d)];
      i /= size[size_t(d)];
      for (size_t k = 0; k < kOperands; ++k) offset[k] += at * stride[size_t(d)][k];
    }
    return offset;
  }

  int rank = 0;
  std::array<int64_t, kMaxRank> size{};
  std::array<Offsets, kMaxRank> stride{};

 private:
  void push(int64_t n, const Offsets& step) {
    if (rank > 0) {
      const auto last = size_t(rank - 1);
      bool merges = true;
      for (size_t k = 0; k < kOperands; ++k) merges = merges && stride[last][k] == step[k] * n;
      if (merges) {
        size[last] *= n;
        stride[last] = step;
        return;
      }
    }
    size[size_t(rank)] = n;
    stride[size_t(rank)] = step;
    ++rank;
  }
};

}  // namespace tessera::cpu
