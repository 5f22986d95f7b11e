#include <algorithm>

#include "tensor/base/parallel.h"
#include "tensor/cpu/conv.h"
#include "tensor/cpu/conv_plan.h"

namespace tessera::cpu {

namespace {

const float* matrix(const MatrixView& m, int64_t batch) { return data<const float>(m) + batch * m.batch_stride; }

}  // namespace

// b is packed into panels of output columns as the weights of a 1x1 convolution are; a is read as it lies when its columns are
// adjacent and copied otherwise, and c is formed in scratch memory when its columns are not adjacent.
void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  const int64_t depth = a.cols;
  // The tile vectorises the columns of c: a c that is adjacent by columns is computed as its transpose.
  if (c.col_stride != 1 && c.row_stride == 1) {
    const auto flip = [](const MatrixView& m) {
      return MatrixView{m.p, m.t, m.batch, m.cols, m.rows, m.batch_stride, m.col_stride, m.row_stride};
    };
    return matmul(flip(b), flip(a), flip(c), accumulate);
  }
  const TileKernels<float> k = tile_kernels<float>();
  const std::vector<ChannelGroup> groups = channel_groups(b.cols, k);
  const std::vector<int64_t> starts = packed_starts(groups, k);
  const int64_t width = packed_width(groups, k);
  const bool copy_a = a.col_stride != 1 && depth > 1;
  const bool copy_c = c.col_stride != 1 && c.cols > 1;
  const HostScratch<float> packed(width * depth);
  const HostScratch<float> a_rows(copy_a ? a.rows * depth : 0);
  const HostScratch<float> c_rows(copy_c ? c.rows * c.cols : 0);
  constexpr int64_t kGrain = 256;  // rows of a copy
  for (int64_t i = 0; i < c.batch; ++i) {
    if (i == 0 || b.batch_stride != 0) {
      parallel_chunks(static_cast<int64_t>(groups.size()), [&](int64_t g) {
        const ChannelGroup& group = groups[static_cast<size_t>(g)];
        k.pack(packed.get() + starts[static_cast<size_t>(g)] * depth, group.vectors * k.lanes,
               matrix(b, i) + group.start * b.col_stride, b.col_stride, b.row_stride, group.channels, depth);
      });
    }
    if (copy_a && (i == 0 || a.batch_stride != 0)) {
      parallel_for(a.rows, kGrain, [&](int64_t first, int64_t last) {
        k.pack(a_rows.get() + first * depth, depth, matrix(a, i) + first * a.row_stride, a.col_stride, a.row_stride, depth,
               last - first);
      });
    }
    RowJob<float> end;
    end.accumulate = accumulate && !copy_c;
    run({copy_a ? a_rows.get() : matrix(a, i), copy_a ? depth : a.row_stride, a.rows, depth, packed.get(),
         copy_c ? c_rows.get() : data<float>(c) + i * c.batch_stride, copy_c ? c.cols : c.row_stride, end},
        groups, k);
    if (!copy_c) continue;
    float* out = data<float>(c) + i * c.batch_stride;
    parallel_for(c.rows, kGrain, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        for (int64_t j = 0; j < c.cols; ++j) {
          float& to = out[r * c.row_stride + j * c.col_stride];
          to = accumulate ? to + c_rows.get()[r * c.cols + j] : c_rows.get()[r * c.cols + j];
        }
      }
    });
  }
}

}  // namespace tessera::cpu
