#include "tensor/ops/reduce.h"

#include "tensor/ops/checks.h"

namespace tessera {

std::string_view name_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum: return "sum";
    case ReduceOp::kMean: return "mean";
    case ReduceOp::kMax: return "max";
  }
  return "?";
}

namespace ops {

Tensor reduce(ReduceOp op, const Tensor& x, const std::vector<int>& axes, bool keep_dims) {
  check_defined(name_of(op), "x", x);
  const bool integral = x.dtype() == DType::kI64 || x.dtype() == DType::kI32;
  TESSERA_CHECK(is_floating(x.dtype()) || (integral && op != ReduceOp::kMean), "{}: got x {}, expected a floating type{}",
                name_of(op), describe(x), op == ReduceOp::kMean ? "" : ", i64 or i32");
  std::array<bool, kMaxRank> reduced{};
  for (int axis : axes) reduced[size_t(normalize_axis(axis, x.rank()))] = true;
  if (axes.empty()) reduced.fill(true);
  Shape kept = x.shape();  // with the reduced axes as 1
  Shape dropped;           // without them
  for (int i = 0; i < x.rank(); ++i) {
    if (reduced[size_t(i)]) {
      TESSERA_CHECK(x.shape()[i] > 0 || op == ReduceOp::kSum, "{}: got x {}, expected at least one element on axis {}", name_of(op),
                    describe(x), i);
      kept[i] = 1;
    } else {
      dropped.push_back(x.shape()[i]);
    }
  }
  Tensor y = Tensor::empty(kept, x.dtype(), x.device());
  backend_for(x.device()).reduce(op, x.strided(), y.strided());
  return keep_dims ? y : y.view(dropped);
}

Tensor argmax(const Tensor& x) {
  check_defined("argmax", "x", x);
  TESSERA_CHECK(x.rank() >= 1 && x.size(-1) >= 1, "argmax: got x {}, expected at least one element on the last axis", describe(x));
  const Tensor in = readable(x);
  Shape shape;
  for (int i = 0; i + 1 < x.rank(); ++i) shape.push_back(x.shape()[i]);
  Tensor index = Tensor::empty(shape, DType::kI64, x.device());
  backend_for(x.device()).argmax(in.rows(), index.view({index.numel(), 1}).rows());
  return index;
}

std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k) {
  check_defined("topk", "x", x);
  TESSERA_CHECK(x.rank() >= 1 && k >= 1 && k <= x.size(-1), "topk: got k = {} for x {}, expected 1 <= k <= size of the last axis",
                k, describe(x));
  const Tensor in = readable(x);
  Shape shape = x.shape();
  shape[x.rank() - 1] = k;
  Tensor values = Tensor::empty(shape, x.dtype(), x.device());
  Tensor indices = Tensor::empty(shape, DType::kI64, x.device());
  backend_for(x.device()).topk(in.rows(), values.rows(), indices.rows());
  return {values, indices};
}

}  // namespace ops

}  // namespace tessera
