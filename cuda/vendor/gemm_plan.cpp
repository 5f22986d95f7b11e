#include "cuda/vendor/gemm_plan.h"

#include "cuda/vendor/plan_key.h"

namespace tessera::cuda {

namespace {

struct Layout {
  int64_t step;
  int32_t transposed;
};
// In rows where both would do. One row or column has no second step; the library wants one that covers it.
std::optional<Layout> layout_of(const MatrixView& m) {
  const auto fits = [](int64_t inner_count, int64_t inner, int64_t outer_count, int64_t outer) {
    return (inner == 1 || inner_count == 1) && (outer >= inner_count || outer_count == 1);
  };
  if (fits(m.cols, m.col_stride, m.rows, m.row_stride)) return Layout{m.rows == 1 ? m.cols : m.row_stride, 0};
  if (fits(m.rows, m.row_stride, m.cols, m.col_stride)) return Layout{m.cols == 1 ? m.rows : m.col_stride, 1};
  return std::nullopt;
}

}  // namespace

std::optional<GemmKey> gemm_key(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate,
                                const GemmRules& rules) {
  const auto la = layout_of(a), lb = layout_of(b), lc = layout_of(c);
  if (!la || !lb || !lc || a.batch_stride < 0 || b.batch_stride < 0 || c.batch_stride < 0) return std::nullopt;
  GemmKey k;
  if (c.batch > 1) k.a_batch_step = a.batch_stride, k.b_batch_step = b.batch_stride, k.c_batch_step = c.batch_stride;
  k.a_step = la->step, k.b_step = lb->step, k.c_step = lc->step;
  k.a_transposed = la->transposed, k.b_transposed = lb->transposed, k.c_transposed = lc->transposed;
  k.type = int32_t(c.t);
  k.batch = size_in_key(c.batch), k.rows = size_in_key(c.rows), k.cols = size_in_key(c.cols), k.depth = size_in_key(a.cols);
  k.a_alignment = alignment_of(a.p), k.b_alignment = alignment_of(b.p), k.c_alignment = alignment_of(c.p);
  k.accumulate = accumulate;
  k.deterministic = rules.deterministic;
  k.tf32 = c.t == DType::kF32 && rules.tf32;
  k.device = rules.device;
  return k;
}

std::string text_of(const GemmKey& k) {
  return fmt::format("matmul {} {}x[{} x {}{}] * [{} x {}{}]{}", name_of(k.dtype()), k.batch, k.rows, k.depth,
                     k.a_transposed ? " in columns" : "", k.depth, k.cols, k.b_transposed ? " in columns" : "",
                     k.accumulate ? ", added" : "");
}

}  // namespace tessera::cuda
