#include "cuda/cuda_backend.h"

#include "cuda/context.h"
#include "cuda/kernels.h"
#include "cuda/side_work.h"

namespace tessera {

namespace {
// The losses check that they are given f32.
float* floats(void* p) { return static_cast<float*>(p); }
const float* floats(const void* p) { return static_cast<const float*>(p); }
}  // namespace

CachingAllocator& CudaBackend::allocator() { return cuda::device_allocator(); }
int64_t CudaBackend::available_bytes() { return cuda::free_bytes(); }
void CudaBackend::synchronize() { cuda::synchronize(); }
void CudaBackend::upload(void* device, const void* host, size_t bytes) { cuda::upload(device, host, bytes); }
void CudaBackend::download(void* host, const void* device, size_t bytes) { cuda::download(host, device, bytes); }

void CudaBackend::fill(const StridedView& y, double value) { cuda::fill(y, value); }
void CudaBackend::copy(const StridedView& x, const StridedView& y) { cuda::copy(x, y); }

void CudaBackend::unary(UnaryOp op, RowsView x, RowsView y) { cuda::unary(op, x, y); }
void CudaBackend::unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) {
  cuda::unary_backward(op, x, dy, dx, accumulate);
}
void CudaBackend::binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) {
  cuda::binary(op, a, b, y);
}
void CudaBackend::add_scaled(RowsView x, double alpha, RowsView y) { cuda::add_scaled(x, alpha, y); }
void CudaBackend::scale(RowsView x, double alpha, RowsView y) { cuda::scale(x, alpha, y); }

void CudaBackend::reduce(ReduceOp op, const StridedView& x, const StridedView& y) { cuda::reduce(op, x, y); }
void CudaBackend::argmax(RowsView x, RowsView index) { cuda::argmax(x, index); }
void CudaBackend::topk(RowsView x, RowsView values, RowsView indices) { cuda::topk(x, values, indices); }

void CudaBackend::matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  cuda::matmul(a, b, c, accumulate);
}

void CudaBackend::conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  cuda::conv2d(x, w, y, p, epilogue);
}
void CudaBackend::conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  cuda::conv2d_backward_data(dy, w, dx, p, accumulate);
}
void CudaBackend::conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  cuda::beside([&] { cuda::conv2d_backward_weight(x, dy, dw, p, accumulate); });
}
void CudaBackend::bias_backward(RowsView dy, void* dbias, bool accumulate) {
  cuda::beside([&] { cuda::bias_backward(dy, dbias, accumulate); });
}
void CudaBackend::conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  cuda::conv_transpose2x2(x, w, y, bias);
}
void CudaBackend::conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  cuda::conv_transpose2x2_backward_data(dy, w, dx, accumulate);
}
void CudaBackend::conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  cuda::beside([&] { cuda::conv_transpose2x2_backward_weight(x, dy, dw, accumulate); });
}

void CudaBackend::max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) { cuda::max_pool2d(x, y, index, p); }
void CudaBackend::max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) {
  cuda::max_pool2d_backward(dy, index, dx, p, accumulate);
}
void CudaBackend::upsample2x(ImageView x, ImageView y) { cuda::upsample2x(x, y); }
void CudaBackend::upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) {
  cuda::upsample2x_backward(dy, dx, accumulate);
}
void CudaBackend::resize_bilinear(ImageView x, ImageView y) { cuda::resize_bilinear(x, y); }

void CudaBackend::batch_norm_stats(ImageView x, double eps, const RunningStatsView& running, void* mean, void* rstd) {
  cuda::batch_norm_stats(x, eps, running, mean, rstd);
}
void CudaBackend::conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps,
                                    const RunningStatsView& running, void* mean, void* rstd) {
  cuda::conv2d_with_stats(x, w, y, p, eps, running, mean, rstd);
}
void CudaBackend::batch_norm_rstd(RowsView var, double eps, void* rstd) { cuda::batch_norm_rstd(var, eps, rstd); }
void CudaBackend::batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) {
  cuda::batch_norm_apply(x, bn, act, residual, y);
}
void CudaBackend::batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma,
                                      void* dbeta, bool accumulate) {
  cuda::batch_norm_backward(x, dy, bn, act, dx, dgamma, dbeta, accumulate);
}
void CudaBackend::batch_norm_part(ImageView x, double* part) { cuda::batch_norm_part(x, part); }
void CudaBackend::batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, DType type, void* mean, void* rstd) {
  cuda::batch_norm_join(parts, eps, running, type, mean, rstd);
}
void CudaBackend::batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd,
                                        void* slope, void* offset) {
  cuda::batch_norm_correction(parts, sums, own, gamma, rstd, slope, offset);
}

void CudaBackend::softmax(RowsView x, RowsView y, bool log) { cuda::softmax(x, y, log); }
void CudaBackend::softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) { cuda::softmax_backward(y, dy, dx, log); }

void CudaBackend::gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) {
  cuda::gather_rows(tables, index, y);
}
void CudaBackend::scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) {
  cuda::scatter_add_rows(x, index, tables);
}

void CudaBackend::bce_with_logits(RowsView x, RowsView target, void* sum) { cuda::bce_with_logits(x, target, floats(sum)); }
void CudaBackend::bce_with_logits_backward(RowsView x, RowsView target, const void* scale, RowsView dx, bool accumulate) {
  cuda::bce_with_logits_backward(x, target, floats(scale), dx, accumulate);
}
void CudaBackend::bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, void* sum) {
  cuda::bce_with_labels(x, label, score, floats(sum));
}
void CudaBackend::bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score, const void* scale,
                                           std::span<const RowsView> dx) {
  cuda::bce_with_labels_backward(x, label, score, floats(scale), dx);
}
void CudaBackend::ciou_loss(RowsView boxes, RowsView target, const void* weight, void* ciou, void* sum) {
  cuda::ciou_loss(boxes, target, floats(weight), floats(ciou), floats(sum));
}
void CudaBackend::ciou_loss_backward(RowsView boxes, RowsView target, const void* weight, const void* scale, RowsView dboxes) {
  cuda::ciou_loss_backward(boxes, target, floats(weight), floats(scale), dboxes);
}
void CudaBackend::dfl_loss(RowsView logits, RowsView target, const void* weight, void* sum) {
  cuda::dfl_loss(logits, target, floats(weight), floats(sum));
}
void CudaBackend::dfl_loss_backward(RowsView logits, RowsView target, const void* weight, const void* scale, RowsView dlogits,
                                    bool accumulate) {
  cuda::dfl_loss_backward(logits, target, floats(weight), floats(scale), dlogits, accumulate);
}
void CudaBackend::mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                            void* sum) {
  cuda::mask_loss(coefficients, prototypes, masks, items, floats(sum));
}
void CudaBackend::mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                                     const void* scale, RowsView dcoefficients, ImageView dprototypes) {
  cuda::mask_loss_backward(coefficients, prototypes, masks, items, floats(scale), dcoefficients, dprototypes);
}

void CudaBackend::assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) {
  cuda::assign(in, params, target, score);
}
void CudaBackend::collect_positives(const AssignInput& in, const int32_t* mask_ids, const int32_t* target, const float* score,
                                    const PositivesParams& params, const PositivesView& out) {
  cuda::collect_positives(in, mask_ids, target, score, params, out);
}

void CudaBackend::detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) {
  cuda::detect(in, params, detections, coefficients);
}
int64_t CudaBackend::detect_scratch_bytes(const DetectInput& in, const DetectParams& params) {
  return cuda::detect_scratch_bytes(in, params);
}
void CudaBackend::mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  cuda::mask_patches(prototypes, coefficients, items, words);
}

void CudaBackend::sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) {
  cuda::sgd(p, g, v, grad_scale, s);
}
void CudaBackend::adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) {
  cuda::adam(p, g, m, v, grad_scale, a);
}
void CudaBackend::lerp(RowsView y, RowsView x, double weight) { cuda::lerp(y, x, weight); }
double CudaBackend::sum_of_squares(RowsView x) { return cuda::sum_of_squares(x); }
bool CudaBackend::all_finite(RowsView x) { return cuda::all_finite(x); }
void CudaBackend::update(const UpdateArrays<RowsView>& arrays, const double* settings, double* state, const UpdateParams& p) {
  cuda::update(arrays, settings, state, p);
}

void CudaBackend::uniform(RowsView y, const RandomStream& s, double low, double high) { cuda::uniform(y, s, low, high); }
void CudaBackend::normal(RowsView y, const RandomStream& s, double mean, double deviation) { cuda::normal(y, s, mean, deviation); }

}  // namespace tessera
