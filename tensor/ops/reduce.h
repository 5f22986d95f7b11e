// Reductions: sum, mean, max over axes; argmax and top-k over the last axis.
#pragma once

#include <utility>

#include "tensor/tensor.h"

namespace tessera {

enum class ReduceOp { kSum, kMean, kMax };

class ReduceOps {
 public:
  virtual ~ReduceOps() = default;
  // y has the rank of x and size 1 on every reduced axis. Sums are formed in double or pairwise, in a fixed order.
  virtual void reduce(ReduceOp op, const StridedView& x, const StridedView& y) = 0;
  virtual void argmax(RowsView x, RowsView index) = 0;  // per row: i64 position of the first maximum; index is rows x 1
  // Per row: the k largest, descending; equal values by ascending position. values and indices (i64) are rows x k.
  virtual void topk(RowsView x, RowsView values, RowsView indices) = 0;
};

std::string_view name_of(ReduceOp op);

namespace ops {
Tensor reduce(ReduceOp op, const Tensor& x, const std::vector<int>& axes, bool keep_dims = false);  // empty axes: all
Tensor argmax(const Tensor& x);                            // over the last axis, which is dropped
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k);  // values, indices over the last axis
}  // namespace ops

}  // namespace tessera
