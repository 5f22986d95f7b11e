// Loops over tensors of any strides: axes that lie together in every operand are joined on the host, so that most loops have one or
// two axes left when a kernel takes a flat index apart.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

#include "cuda/device/platform.cuh"
#include "cuda/device/views.cuh"

namespace tessera::cuda {

// K operands walked together. Axis 0 is the outermost.
template <int K>
struct StridedLoop {
  int rank = 0;
  int count = 1;  // positions in all
  int size[kMaxRank] = {};
  int64_t stride[kMaxRank][K] = {};

  // Element offsets of flat position i.
  __device__ void offsets(int i, int64_t (&offset)[K]) const {
#pragma unroll
    for (int k = 0; k < K; ++k) offset[k] = 0;
#pragma unroll
    for (int axis = kMaxRank - 1; axis >= 0; --axis) {  // unrolled, so that the loop is read in place and not copied to the stack
      if (axis >= rank) continue;
      const int next = i / size[axis];
      const int at = i - next * size[axis];
#pragma unroll
      for (int k = 0; k < K; ++k) offset[k] += at * stride[axis][k];
      i = next;
    }
  }
};

// The loop over `shape` with the strides of K operands. The last operand sets the order: its smallest stride becomes the innermost
// axis, which neighbouring threads walk.
template <int K>
StridedLoop<K> strided_loop(const Shape& shape, const std::array<Strides, K>& strides) {
  struct Axis {
    int64_t size;
    std::array<int64_t, size_t(K)> stride;
  };
  std::array<Axis, kMaxRank> axes;
  int rank = 0;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 1) continue;
    Axis axis{shape[i], {}};
    for (size_t k = 0; k < size_t(K); ++k) axis.stride[k] = strides[k][i];
    axes[size_t(rank++)] = axis;
  }
  std::stable_sort(axes.begin(), axes.begin() + rank,
                   [](const Axis& a, const Axis& b) { return std::abs(a.stride[K - 1]) > std::abs(b.stride[K - 1]); });
  StridedLoop<K> loop;
  for (int i = 0; i < rank; ++i) {
    const Axis& axis = axes[size_t(i)];
    int last = loop.rank - 1;
    bool joins = last >= 0;
    for (int k = 0; joins && k < K; ++k) joins = loop.stride[last][k] == axis.stride[size_t(k)] * axis.size;
    if (joins) {
      loop.size[last] = size32(loop.size[last] * axis.size);
    } else {
      last = loop.rank++;
      loop.size[last] = size32(axis.size);
    }
    for (int k = 0; k < K; ++k) loop.stride[last][k] = axis.stride[size_t(k)];
  }
  loop.count = size32(numel(shape));
  return loop;
}

}  // namespace tessera::cuda
