#include "tensor/observing_backend.h"

namespace tessera {

namespace {

double bytes(const RowsView& v) { return v.p == nullptr ? 0 : double(v.rows * v.cols) * double(size_of(v.t)); }
double bytes(const ImageView& v) { return bytes(v.rows()); }
double bytes(const FilterView& v) { return double(v.o * v.kh * v.kw * v.i) * double(size_of(v.t)); }
double bytes(const MatrixView& v) { return double((v.batch_stride == 0 ? 1 : v.batch) * v.rows * v.cols) * double(size_of(v.t)); }
// A broadcast value is read once.
double bytes(const StridedView& v) {
  double n = double(size_of(v.t));
  for (int i = 0; i < v.shape.rank(); ++i) n *= v.strides[i] == 0 ? 1.0 : double(v.shape[i]);
  return n;
}

template <class... Views>
double sum(const Views&... views) {
  return (bytes(views) + ...);
}

// Where a result is added to what is there, it is read as well.
template <class View>
double written(const View& v, bool accumulate) {
  return accumulate ? 2 * bytes(v) : bytes(v);
}

double conv_operations(const ImageView& y, const FilterView& w) {
  return 2.0 * double(y.n * y.h * y.w) * double(w.o * w.kh * w.kw * w.i);
}
// Each weight meets each pixel of x once.
double transpose_operations(const ImageView& x, const FilterView& w) { return conv_operations(x, w); }

using enum OpKind;

}  // namespace

// ---- between host and device

void ObservingBackend::upload(void* device, const void* host, size_t n) {
  observe({kTransfer, 0, double(n)}, [&] { inner_.upload(device, host, n); });
}
void ObservingBackend::download(void* host, const void* device, size_t n) {
  observe({kTransfer, 0, double(n)}, [&] { inner_.download(host, device, n); });
}

// ---- copy, pointwise, reduce

void ObservingBackend::fill(const StridedView& y, double value) {
  observe({kPointwise, 0, sum(y)}, [&] { inner_.fill(y, value); });
}
void ObservingBackend::copy(const StridedView& x, const StridedView& y) {
  observe({kPointwise, 0, sum(x, y)}, [&] { inner_.copy(x, y); });
}
void ObservingBackend::unary(UnaryOp op, RowsView x, RowsView y) {
  observe({kPointwise, 0, sum(x, y)}, [&] { inner_.unary(op, x, y); });
}
void ObservingBackend::unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) {
  observe({kPointwise, 0, sum(x, dy) + written(dx, accumulate)}, [&] { inner_.unary_backward(op, x, dy, dx, accumulate); });
}
void ObservingBackend::binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) {
  observe({kPointwise, 0, sum(a, b, y)}, [&] { inner_.binary(op, a, b, y); });
}
void ObservingBackend::add_scaled(RowsView x, double alpha, RowsView y) {
  observe({kPointwise, 0, sum(x) + written(y, true)}, [&] { inner_.add_scaled(x, alpha, y); });
}
void ObservingBackend::scale(RowsView x, double alpha, RowsView y) {
  observe({kPointwise, 0, sum(x, y)}, [&] { inner_.scale(x, alpha, y); });
}
void ObservingBackend::reduce(ReduceOp op, const StridedView& x, const StridedView& y) {
  observe({kPointwise, 0, sum(x, y)}, [&] { inner_.reduce(op, x, y); });
}
void ObservingBackend::argmax(RowsView x, RowsView index) {
  observe({kPointwise, 0, sum(x, index)}, [&] { inner_.argmax(x, index); });
}
void ObservingBackend::topk(RowsView x, RowsView values, RowsView indices) {
  observe({kPointwise, 0, sum(x, values, indices)}, [&] { inner_.topk(x, values, indices); });
}
void ObservingBackend::matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  const double operations = 2.0 * double(c.batch * c.rows * c.cols) * double(a.cols);
  observe({kPointwise, operations, sum(a, b) + written(c, accumulate)}, [&] { inner_.matmul(a, b, c, accumulate); });
}

// ---- convolution

void ObservingBackend::pack_filter(FilterView w, const ConvParams& p, void* packed) {
  observe({kPointwise, 0, 2 * sum(w)}, [&] { inner_.pack_filter(w, p, packed); });
}
void ObservingBackend::conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  observe({kForward, conv_operations(y, w), sum(x, w, y, epilogue.residual)}, [&] { inner_.conv2d(x, w, y, p, epilogue); });
}
void ObservingBackend::conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  observe({kBackwardData, conv_operations(dy, w), sum(dy, w) + written(dx, accumulate)},
          [&] { inner_.conv2d_backward_data(dy, w, dx, p, accumulate); });
}
void ObservingBackend::conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  observe({kBackwardWeights, conv_operations(dy, dw), sum(x, dy) + written(dw, accumulate)},
          [&] { inner_.conv2d_backward_weight(x, dy, dw, p, accumulate); });
}
void ObservingBackend::bias_backward(RowsView dy, void* dbias, bool accumulate) {
  observe({kBackwardWeights, 0, sum(dy)}, [&] { inner_.bias_backward(dy, dbias, accumulate); });
}
void ObservingBackend::conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  observe({kForward, transpose_operations(x, w), sum(x, w, y)}, [&] { inner_.conv_transpose2x2(x, w, y, bias); });
}
void ObservingBackend::conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  observe({kBackwardData, transpose_operations(dx, w), sum(dy, w) + written(dx, accumulate)},
          [&] { inner_.conv_transpose2x2_backward_data(dy, w, dx, accumulate); });
}
void ObservingBackend::conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  observe({kBackwardWeights, transpose_operations(x, dw), sum(x, dy) + written(dw, accumulate)},
          [&] { inner_.conv_transpose2x2_backward_weight(x, dy, dw, accumulate); });
}

// ---- pooling

void ObservingBackend::max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) {
  observe({kPointwise, 0, sum(x, y, index)}, [&] { inner_.max_pool2d(x, y, index, p); });
}
void ObservingBackend::max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) {
  observe({kPointwise, 0, sum(dy, index) + written(dx, accumulate)},
          [&] { inner_.max_pool2d_backward(dy, index, dx, p, accumulate); });
}
void ObservingBackend::upsample2x(ImageView x, ImageView y) {
  observe({kPointwise, 0, sum(x, y)}, [&] { inner_.upsample2x(x, y); });
}
void ObservingBackend::upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) {
  observe({kPointwise, 0, sum(dy) + written(dx, accumulate)}, [&] { inner_.upsample2x_backward(dy, dx, accumulate); });
}
void ObservingBackend::resize_bilinear(ImageView x, ImageView y) {
  observe({kPointwise, 0, sum(x, y)}, [&] { inner_.resize_bilinear(x, y); });
}

// ---- norm

void ObservingBackend::batch_norm_stats(ImageView x, double eps, const RunningStatsView& running, void* mean, void* rstd) {
  observe({kNorm, 0, sum(x)}, [&] { inner_.batch_norm_stats(x, eps, running, mean, rstd); });
}
void ObservingBackend::conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps,
                                         const RunningStatsView& running, void* mean, void* rstd) {
  observe({kForward, conv_operations(y, w), sum(x, w, y)},
          [&] { inner_.conv2d_with_stats(x, w, y, p, eps, running, mean, rstd); });
}
void ObservingBackend::batch_norm_rstd(RowsView var, double eps, void* rstd) {
  observe({kNorm, 0, 2 * sum(var)}, [&] { inner_.batch_norm_rstd(var, eps, rstd); });
}
void ObservingBackend::batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) {
  observe({kNorm, 0, sum(x, residual, y)}, [&] { inner_.batch_norm_apply(x, bn, act, residual, y); });
}
void ObservingBackend::batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx,
                                           void* dgamma, void* dbeta, bool accumulate) {
  // Two passes by nature: the sums over all rows come before the first row of dx.
  observe({kNormBackward, 0, 2 * sum(x, dy) + sum(dx)},
          [&] { inner_.batch_norm_backward(x, dy, bn, act, dx, dgamma, dbeta, accumulate); });
}
void ObservingBackend::batch_norm_part(ImageView x, double* part) {
  observe({kNorm, 0, sum(x)}, [&] { inner_.batch_norm_part(x, part); });
}
void ObservingBackend::batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, DType type, void* mean,
                                       void* rstd) {
  observe({kNorm, 0, sum(parts)}, [&] { inner_.batch_norm_join(parts, eps, running, type, mean, rstd); });
}
void ObservingBackend::batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd,
                                             void* slope, void* offset) {
  observe({kNormBackward, 0, sum(sums)}, [&] { inner_.batch_norm_correction(parts, sums, own, gamma, rstd, slope, offset); });
}

// ---- softmax, index

void ObservingBackend::softmax(RowsView x, RowsView y, bool log) {
  observe({kPointwise, 0, sum(x, y)}, [&] { inner_.softmax(x, y, log); });
}
void ObservingBackend::softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) {
  observe({kPointwise, 0, sum(y, dy, dx)}, [&] { inner_.softmax_backward(y, dy, dx, log); });
}
void ObservingBackend::gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) {
  observe({kPointwise, 0, 2 * sum(y)}, [&] { inner_.gather_rows(tables, index, y); });
}
void ObservingBackend::scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) {
  observe({kPointwise, 0, 3 * sum(x)}, [&] { inner_.scatter_add_rows(x, index, tables); });
}

// ---- losses

void ObservingBackend::bce_with_logits(RowsView x, RowsView target, void* result) {
  observe({kLoss, 0, sum(x, target)}, [&] { inner_.bce_with_logits(x, target, result); });
}
void ObservingBackend::bce_with_logits_backward(RowsView x, RowsView target, const void* scale, RowsView dx, bool accumulate) {
  observe({kLoss, 0, sum(x, target) + written(dx, accumulate)},
          [&] { inner_.bce_with_logits_backward(x, target, scale, dx, accumulate); });
}
void ObservingBackend::bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, void* result) {
  int64_t bytes = 0;
  for (const RowsView& map : x) bytes += sum(map);
  observe({kLoss, 0, double(bytes)}, [&] { inner_.bce_with_labels(x, label, score, result); });
}
void ObservingBackend::bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score,
                                                const void* scale, std::span<const RowsView> dx) {
  int64_t bytes = 0;
  for (const RowsView& map : x) bytes += 2 * sum(map);
  observe({kLoss, 0, double(bytes)}, [&] { inner_.bce_with_labels_backward(x, label, score, scale, dx); });
}
void ObservingBackend::ciou_loss(RowsView boxes, RowsView target, const void* weight, void* ciou, void* result) {
  observe({kLoss, 0, sum(boxes, target)}, [&] { inner_.ciou_loss(boxes, target, weight, ciou, result); });
}
void ObservingBackend::ciou_loss_backward(RowsView boxes, RowsView target, const void* weight, const void* scale, RowsView dboxes) {
  observe({kLoss, 0, sum(boxes, target, dboxes)}, [&] { inner_.ciou_loss_backward(boxes, target, weight, scale, dboxes); });
}
void ObservingBackend::dfl_loss(RowsView logits, RowsView target, const void* weight, void* result) {
  observe({kLoss, 0, sum(logits, target)}, [&] { inner_.dfl_loss(logits, target, weight, result); });
}
void ObservingBackend::dfl_loss_backward(RowsView logits, RowsView target, const void* weight, const void* scale, RowsView dlogits,
                                         bool accumulate) {
  observe({kLoss, 0, sum(logits, target) + written(dlogits, accumulate)},
          [&] { inner_.dfl_loss_backward(logits, target, weight, scale, dlogits, accumulate); });
}
void ObservingBackend::mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                                 void* result) {
  observe({kLoss, 0, sum(coefficients, prototypes)}, [&] { inner_.mask_loss(coefficients, prototypes, masks, items, result); });
}
void ObservingBackend::mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks,
                                          const MaskLossItems& items, const void* scale, RowsView dcoefficients,
                                          ImageView dprototypes) {
  observe({kLoss, 0, sum(coefficients, prototypes) + written(dcoefficients, true) + written(dprototypes, true)},
          [&] { inner_.mask_loss_backward(coefficients, prototypes, masks, items, scale, dcoefficients, dprototypes); });
}

// ---- assignment

void ObservingBackend::assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) {
  double bytes = 0;
  for (const AnchorLevel& level : in.levels) bytes += sum(level.box, level.cls);
  observe({kLoss, 0, double(bytes)}, [&] { inner_.assign(in, params, target, score); });
}
void ObservingBackend::collect_positives(const AssignInput& in, const int32_t* mask_ids, const int32_t* target, const float* score,
                                         const PositivesParams& params, const PositivesView& out) {
  observe({kLoss, 0, 8.0 * double(in.rows())}, [&] { inner_.collect_positives(in, mask_ids, target, score, params, out); });
}

// ---- detection

void ObservingBackend::detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) {
  double bytes = double(in.images() * params.max_detections * (kDetectionColumns + 2 * in.masks())) * sizeof(float);
  for (const DetectLevel& level : in.levels) bytes += sum(level.cls);
  observe({kPointwise, 0, double(bytes)}, [&] { inner_.detect(in, params, detections, coefficients); });
}
namespace {
// Every cell under a patch is multiplied once.
OpCost cost_of_masks(const ImageView& prototypes, std::span<const MaskItem> items) {
  double cells = 0, written_bytes = 0;
  for (const MaskItem& m : items) {
    written_bytes += double(m.words()) * sizeof(uint32_t);
    cells += double(m.where.width() * m.where.height()) * double(m.slice.width() * m.slice.height()) / (double(m.width) * m.height);
  }
  const double channels = double(prototypes.c);
  return {OpKind::kPointwise, 2 * cells * channels, written_bytes + cells * channels * sizeof(float)};
}
}  // namespace
void ObservingBackend::mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  observe(cost_of_masks(prototypes, items), [&] { inner_.mask_patches(prototypes, coefficients, items, words); });
}
void ObservingBackend::each_mask(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, const TakeMask& take) {
  observe(cost_of_masks(prototypes, items), [&] { inner_.each_mask(prototypes, coefficients, items, take); });
}

// ---- optimizers, random

void ObservingBackend::sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) {
  observe({kOptimizer, 0, 2 * sum(p, v) + sum(g)}, [&] { inner_.sgd(p, g, v, grad_scale, s); });
}
void ObservingBackend::adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) {
  observe({kOptimizer, 0, 2 * sum(p, m, v) + sum(g)}, [&] { inner_.adam(p, g, m, v, grad_scale, a); });
}
void ObservingBackend::lerp(RowsView y, RowsView x, double weight) {
  observe({kPointwise, 0, 2 * sum(y) + sum(x)}, [&] { inner_.lerp(y, x, weight); });
}
double ObservingBackend::sum_of_squares(RowsView x) {
  double result = 0;
  observe({kOptimizer, 0, sum(x)}, [&] { result = inner_.sum_of_squares(x); });
  return result;
}
bool ObservingBackend::all_finite(RowsView x) {
  bool result = true;
  observe({kOptimizer, 0, sum(x)}, [&] { result = inner_.all_finite(x); });
  return result;
}
void ObservingBackend::update(const UpdateArrays<RowsView>& a, const double* settings, double* state, const UpdateParams& p) {
  // Gradients are read for the norm, read again, and zeroed.
  observe({kOptimizer, 0, 3 * sum(a.grads) + 2 * sum(a.values, a.first, a.second, a.average)},
          [&] { inner_.update(a, settings, state, p); });
}
void ObservingBackend::uniform(RowsView y, const RandomStream& s, double low, double high) {
  observe({kPointwise, 0, sum(y)}, [&] { inner_.uniform(y, s, low, high); });
}
void ObservingBackend::normal(RowsView y, const RandomStream& s, double mean, double deviation) {
  observe({kPointwise, 0, sum(y)}, [&] { inner_.normal(y, s, mean, deviation); });
}

}  // namespace tessera
