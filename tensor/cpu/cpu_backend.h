// The fast CPU backend: the reference backend with every op replaced that has a vectorised kernel. What a kernel does not handle
// (f64, f16, bf16 but for the families that kernels.h and conv.h name, unusual layouts) falls back to the reference.
//
// To run another kernel, derive and override its method (docs/tour/06_kernels.md). Who overrides conv2d has two more ways to close:
// packed_filter_size (0, or an order of one's own) and conv2d_with_stats (RefBackend's goes by conv2d).
#pragma once

#include "tensor/ref/ref_backend.h"

namespace tessera {

class CpuBackend : public RefBackend {
 public:
  // The vector instructions in use: "avx512" or "avx2" (cpu/targets.h).
  std::string_view name() const override;

  void fill(const StridedView& y, double value) override;
  void copy(const StridedView& x, const StridedView& y) override;

  void unary(UnaryOp op, RowsView x, RowsView y) override;
  void unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) override;
  void binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) override;
  void add_scaled(RowsView x, double alpha, RowsView y) override;
  void scale(RowsView x, double alpha, RowsView y) override;

  void reduce(ReduceOp op, const StridedView& x, const StridedView& y) override;
  void argmax(RowsView x, RowsView index) override;
  void topk(RowsView x, RowsView values, RowsView indices) override;

  void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) override;

  int64_t packed_filter_size(FilterView w, const ConvParams& p) override;
  void pack_filter(FilterView w, const ConvParams& p, void* packed) override;
  void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) override;
  void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) override;
  void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) override;
  void bias_backward(RowsView dy, void* dbias, bool accumulate) override;
  void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) override;
  void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) override;
  void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) override;
  ConvScratch conv2d_scratch(ConvPass pass, ImageView x, FilterView w, ImageView y, const ConvParams& p) override;
  ConvScratch conv_transpose2x2_scratch(ConvPass pass, ImageView x, FilterView w, ImageView y) override;

  void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) override;
  void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) override;
  void upsample2x(ImageView x, ImageView y) override;
  void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) override;
  void resize_bilinear(ImageView x, ImageView y) override;

  void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) override;
  void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma, void* dbeta,
                           bool accumulate) override;
  void batch_norm_part(ImageView x, double* part) override;
  void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps, const RunningStatsView& running,
                         void* mean, void* rstd) override;
  bool joins_conv2d_and_stats() const override { return true; }

  void softmax(RowsView x, RowsView y, bool log) override;
  void softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) override;

  void gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) override;
  void scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) override;

  void bce_with_logits(RowsView x, RowsView target, void* sum) override;
  void bce_with_logits_backward(RowsView x, RowsView target, const void* scale, RowsView dx, bool accumulate) override;
  void bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, void* sum) override;
  void bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score, const void* scale,
                                std::span<const RowsView> dx) override;
  void ciou_loss(RowsView boxes, RowsView target, const void* weight, void* ciou, void* sum) override;
  void ciou_loss_backward(RowsView boxes, RowsView target, const void* weight, const void* scale, RowsView dboxes) override;
  void dfl_loss(RowsView logits, RowsView target, const void* weight, void* sum) override;
  void dfl_loss_backward(RowsView logits, RowsView target, const void* weight, const void* scale, RowsView dlogits,
                         bool accumulate) override;
  void mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, void* sum) override;
  void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                          const void* scale, RowsView dcoefficients, ImageView dprototypes) override;

  void assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) override;

  void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) override;
  void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) override;
  void each_mask(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, const TakeMask& take) override;

  void sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) override;
  void adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) override;
  void lerp(RowsView y, RowsView x, double weight) override;
  double sum_of_squares(RowsView x) override;
  bool all_finite(RowsView x) override;
};

}  // namespace tessera
