// The launchers that CudaBackend forwards to, one .cu file for each family. They start kernels on the current stream and return;
// only those that return a number wait for it. Contracts are those of tensor/ops/.
#pragma once

#include "tensor/backend.h"

namespace tessera::cuda {

// copy.cu
void fill(const StridedView& y, double value);
void copy(const StridedView& x, const StridedView& y);

// pointwise.cu
void unary(UnaryOp op, RowsView x, RowsView y);
void unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate);
void binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y);
void add_scaled(RowsView x, double alpha, RowsView y);
void scale(RowsView x, double alpha, RowsView y);

// reduce.cu
void reduce(ReduceOp op, const StridedView& x, const StridedView& y);
void argmax(RowsView x, RowsView index);
void topk(RowsView x, RowsView values, RowsView indices);

// matmul.cu
void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate);

// conv.cu
void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue);
void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate);
void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate);
void bias_backward(RowsView dy, void* dbias, bool accumulate);
void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias);
void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate);
void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate);

// pool.cu
void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p);
void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate);
void upsample2x(ImageView x, ImageView y);
void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate);
void resize_bilinear(ImageView x, ImageView y);

// norm.cu
void batch_norm_stats(ImageView x, double eps, const RunningStatsView& running, void* mean, void* rstd);
void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps, const RunningStatsView& running,
                       void* mean, void* rstd);
void batch_norm_rstd(RowsView var, double eps, void* rstd);
void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y);
void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma, void* dbeta,
                         bool accumulate);
void batch_norm_part(ImageView x, double* part);
void batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, DType type, void* mean, void* rstd);
void batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd, void* slope,
                           void* offset);

// softmax.cu
void softmax(RowsView x, RowsView y, bool log);
void softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log);

// index.cu
void gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y);
void scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables);

// losses.cu
void bce_with_logits(RowsView x, RowsView target, float* sum);
void bce_with_logits_backward(RowsView x, RowsView target, const float* scale, RowsView dx, bool accumulate);
void bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, float* sum);
void bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score, const float* scale,
                              std::span<const RowsView> dx);
void ciou_loss(RowsView boxes, RowsView target, const float* weight, float* ciou, float* sum);
void ciou_loss_backward(RowsView boxes, RowsView target, const float* weight, const float* scale, RowsView dboxes);
void dfl_loss(RowsView logits, RowsView target, const float* weight, float* sum);
void dfl_loss_backward(RowsView logits, RowsView target, const float* weight, const float* scale, RowsView dlogits,
                       bool accumulate);
void mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, float* sum);
void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                        const float* scale, RowsView dcoefficients, ImageView dprototypes);

// assign.cu
void assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score);
void collect_positives(const AssignInput& in, const int32_t* mask_ids, const int32_t* target, const float* score,
                       const PositivesParams& params, const PositivesView& out);

// detect.cu
void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients);
int64_t detect_scratch_bytes(const DetectInput& in, const DetectParams& params);

// mask_patches.cu
void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words);

// optim.cu
void sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s);
void adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a);
void lerp(RowsView y, RowsView x, double weight);
double sum_of_squares(RowsView x);
bool all_finite(RowsView x);
void update(const UpdateArrays<RowsView>& arrays, const double* settings, double* state, const UpdateParams& p);

// random.cu
void uniform(RowsView y, const RandomStream& s, double low, double high);
void normal(RowsView y, const RandomStream& s, double mean, double deviation);

}  // namespace tessera::cuda
