#include "tensor/cpu/cpu_backend.h"

#include <algorithm>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/cpu/amx.h"
#include "tensor/cpu/conv.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/targets.h"
#include "tensor/conv_choice.h"

namespace tessera {

namespace {

// A single layer that --conv takes out (of all layers: reference_conv.h).
bool plain() { return conv_choice_here() == ConvChoice::kNaive; }

template <class... Views>
bool all_f32(const Views&... views) {
  return ((views.t == DType::kF32) && ...);
}

// All f32 or all bf16: what convolutions and the kernels over activations and their gradients take.
template <class View, class... Views>
bool all_one_type(const View& first, const Views&... more) {
  return (first.t == DType::kF32 || first.t == DType::kBF16) && ((more.t == first.t) && ...);
}

float* floats(void* p) { return static_cast<float*>(p); }
const float* floats(const void* p) { return static_cast<const float*>(p); }

// The reference does the arithmetic of the rarer row-wise ops; here its rows are shared out among the threads.
constexpr int64_t kRowsPerChunk = 256;

RowsView slice(const RowsView& v, int64_t begin, int64_t end) {
  auto* p = static_cast<std::byte*>(v.p) + begin * v.pitch * int64_t(size_of(v.t));
  return {p, v.t, end - begin, v.cols, v.pitch};
}

}  // namespace

std::string_view CpuBackend::name() const {
  const std::string_view target = cpu::current_target();
  return target == "avx512" && cpu::tile_unit() == cpu::TileUnit::kAmx ? "amx" : target;
}

// ---- copy

void CpuBackend::fill(const StridedView& y, double value) {
  if (!cpu::fill(y, value)) RefBackend::fill(y, value);
}

void CpuBackend::copy(const StridedView& x, const StridedView& y) {
  if (!cpu::copy(x, y)) RefBackend::copy(x, y);
}

// ---- pointwise

void CpuBackend::unary(UnaryOp op, RowsView x, RowsView y) {
  if (!all_one_type(x, y)) return RefBackend::unary(op, x, y);
  cpu::unary(op, x, y);
}

void CpuBackend::unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) {
  if (!all_one_type(x, dy, dx)) return RefBackend::unary_backward(op, x, dy, dx, accumulate);
  cpu::unary_backward(op, x, dy, dx, accumulate);
}

void CpuBackend::binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) {
  if (!all_one_type(a, b, y) || !cpu::binary(op, a, b, y)) RefBackend::binary(op, a, b, y);
}

void CpuBackend::add_scaled(RowsView x, double alpha, RowsView y) {
  if (!all_one_type(x, y)) return RefBackend::add_scaled(x, alpha, y);
  cpu::add_scaled(x, alpha, y);
}

void CpuBackend::scale(RowsView x, double alpha, RowsView y) {
  if (!(x.t == DType::kU8 ? all_one_type(y) : all_one_type(x, y))) return RefBackend::scale(x, alpha, y);
  cpu::scale(x, alpha, y);
}

// ---- reduce

void CpuBackend::reduce(ReduceOp op, const StridedView& x, const StridedView& y) {
  if (!all_one_type(x, y) || !cpu::reduce(op, x, y)) RefBackend::reduce(op, x, y);
}

void CpuBackend::argmax(RowsView x, RowsView index) {
  parallel_for(x.rows, kRowsPerChunk,
               [&](int64_t begin, int64_t end) { RefBackend::argmax(slice(x, begin, end), slice(index, begin, end)); });
}

void CpuBackend::topk(RowsView x, RowsView values, RowsView indices) {
  parallel_for(x.rows, kRowsPerChunk, [&](int64_t begin, int64_t end) {
    RefBackend::topk(slice(x, begin, end), slice(values, begin, end), slice(indices, begin, end));
  });
}

// ---- convolution and matrix product

void CpuBackend::matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) {
  if (!all_f32(a, b, c)) return RefBackend::matmul(a, b, c, accumulate);
  cpu::matmul(a, b, c, accumulate);
}

int64_t CpuBackend::packed_filter_size(FilterView w, const ConvParams& p) {
  return plain() || !all_one_type(w) ? 0 : cpu::packed_filter_size(w, p);
}
void CpuBackend::pack_filter(FilterView w, const ConvParams& p, void* packed) { cpu::pack_filter(w, p, packed); }

void CpuBackend::conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  if (plain() || !all_one_type(x, w, y)) return RefBackend::conv2d(x, w, y, p, epilogue);
  cpu::conv2d(x, w, y, p, epilogue);
}

void CpuBackend::conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  if (plain() || !all_one_type(dy, w, dx)) return RefBackend::conv2d_backward_data(dy, w, dx, p, accumulate);
  cpu::conv2d_backward_data(dy, w, dx, p, accumulate);
}

void CpuBackend::conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  if (plain() || !all_one_type(x, dy)) return RefBackend::conv2d_backward_weight(x, dy, dw, p, accumulate);
  cpu::conv2d_backward_weight(x, dy, dw, p, accumulate);
}

void CpuBackend::bias_backward(RowsView dy, void* dbias, bool accumulate) {
  if (!all_one_type(dy)) return RefBackend::bias_backward(dy, dbias, accumulate);
  cpu::bias_backward(dy, floats(dbias), accumulate);
}

void CpuBackend::conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  if (!all_one_type(x, w, y)) return RefBackend::conv_transpose2x2(x, w, y, bias);
  cpu::conv_transpose2x2(x, w, y, floats(bias));
}

void CpuBackend::conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  if (!all_one_type(dy, w, dx)) return RefBackend::conv_transpose2x2_backward_data(dy, w, dx, accumulate);
  cpu::conv_transpose2x2_backward_data(dy, w, dx, accumulate);
}

void CpuBackend::conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  if (!all_one_type(x, dy)) return RefBackend::conv_transpose2x2_backward_weight(x, dy, dw, accumulate);
  cpu::conv_transpose2x2_backward_weight(x, dy, dw, accumulate);
}

ConvScratch CpuBackend::conv2d_scratch(ConvPass pass, ImageView x, FilterView w, ImageView y, const ConvParams& p) {
  return plain() || !all_one_type(x, y) ? ConvScratch{} : cpu::conv2d_scratch(pass, x, w, y, p);
}

ConvScratch CpuBackend::conv_transpose2x2_scratch(ConvPass pass, ImageView x, FilterView w, ImageView y) {
  return all_one_type(x, y) ? cpu::conv_transpose2x2_scratch(pass, x, w, y) : ConvScratch{};
}

// ---- pooling

void CpuBackend::max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) {
  if (!all_one_type(x, y)) return RefBackend::max_pool2d(x, y, index, p);
  cpu::max_pool2d(x, y, index, p);
}

void CpuBackend::max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) {
  if (!all_one_type(dy, dx)) return RefBackend::max_pool2d_backward(dy, index, dx, p, accumulate);
  cpu::max_pool2d_backward(dy, index, dx, p, accumulate);
}

void CpuBackend::upsample2x(ImageView x, ImageView y) {
  if (!all_one_type(x, y)) return RefBackend::upsample2x(x, y);
  cpu::upsample2x(x, y);
}

void CpuBackend::upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) {
  if (!all_one_type(dy, dx)) return RefBackend::upsample2x_backward(dy, dx, accumulate);
  cpu::upsample2x_backward(dy, dx, accumulate);
}

void CpuBackend::resize_bilinear(ImageView x, ImageView y) {
  if (x.t != DType::kF32 || y.t != DType::kF32) return RefBackend::resize_bilinear(x, y);
  cpu::resize_bilinear(x, y);
}

// ---- norm

void CpuBackend::batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) {
  if (!all_one_type(x, y)) return RefBackend::batch_norm_apply(x, bn, act, residual, y);
  cpu::batch_norm_apply(x, bn, act, residual, y);
}

void CpuBackend::batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma,
                                     void* dbeta, bool accumulate) {
  if (!all_one_type(x, dy, dx)) return RefBackend::batch_norm_backward(x, dy, bn, act, dx, dgamma, dbeta, accumulate);
  cpu::batch_norm_backward(x, dy, bn, act, dx, floats(dgamma), floats(dbeta), accumulate);
}

void CpuBackend::batch_norm_part(ImageView x, double* part) {
  if (!all_one_type(x)) return RefBackend::batch_norm_part(x, part);
  part[0] = double(x.n * x.h * x.w);
  cpu::batch_norm_moments(x, part + 1, part + 1 + x.c);
}

void CpuBackend::conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps,
                                   const RunningStatsView& running, void* mean, void* rstd) {
  // What caches hold is read again from there, and many small parts cost more than that.
  constexpr int64_t kLeastBytes = int64_t{16} << 20;
  if (plain() || !all_one_type(x, w, y) || y.n * y.h * y.w * y.c * int64_t(size_of(y.t)) < kLeastBytes) {
    return RefBackend::conv2d_with_stats(x, w, y, p, eps, running, mean, rstd);
  }
  const int64_t width = 1 + 2 * y.c;
  std::vector<double> part(static_cast<size_t>(width));
  part[0] = double(y.n * y.h * y.w);
  cpu::conv2d_with_stats(x, w, y, p, part.data() + 1, part.data() + 1 + y.c);
  batch_norm_join({part.data(), DType::kF64, 1, width, width}, eps, running, DType::kF32, mean, rstd);
}

// ---- softmax

void CpuBackend::softmax(RowsView x, RowsView y, bool log) {
  if (!all_one_type(x, y)) return RefBackend::softmax(x, y, log);
  cpu::softmax(x, y, log);
}

void CpuBackend::softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) {
  if (!all_one_type(y, dy, dx)) return RefBackend::softmax_backward(y, dy, dx, log);
  cpu::softmax_backward(y, dy, dx, log);
}

// ---- index

void CpuBackend::gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) {
  cpu::gather_rows(tables, index, y);
}

void CpuBackend::scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) {
  if (!all_one_type(x)) return RefBackend::scatter_add_rows(x, index, tables);
  for (size_t t = 0; t < tables.size(); ++t) cpu::scatter_add_rows(x, index + int64_t(t) * x.rows, tables[t]);
}

// ---- losses

void CpuBackend::bce_with_logits(RowsView x, RowsView target, void* sum) {
  if (!all_f32(x, target)) return RefBackend::bce_with_logits(x, target, sum);
  *floats(sum) = float(cpu::bce_with_logits(x, target));
}

void CpuBackend::bce_with_logits_backward(RowsView x, RowsView target, const void* scale, RowsView dx, bool accumulate) {
  if (!all_f32(x, target, dx)) return RefBackend::bce_with_logits_backward(x, target, scale, dx, accumulate);
  cpu::bce_with_logits_backward(x, target, *floats(scale), dx, accumulate);
}

void CpuBackend::bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, void* sum) {
  if (!all_f32(x[0])) return RefBackend::bce_with_labels(x, label, score, sum);
  double total = 0;
  for (const RowsView& map : x) {
    total += cpu::bce_with_labels(map, label, score);
    label += map.rows, score += map.rows;
  }
  *floats(sum) = float(total);
}

void CpuBackend::bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score, const void* scale,
                                          std::span<const RowsView> dx) {
  if (!all_f32(x[0])) return RefBackend::bce_with_labels_backward(x, label, score, scale, dx);
  for (size_t m = 0; m < x.size(); ++m) {
    cpu::bce_with_labels_backward(x[m], label, score, *floats(scale), dx[m]);
    label += x[m].rows, score += x[m].rows;
  }
}

void CpuBackend::ciou_loss(RowsView boxes, RowsView target, const void* weight, void* ciou, void* sum) {
  if (!all_f32(boxes, target)) return RefBackend::ciou_loss(boxes, target, weight, ciou, sum);
  std::vector<double> partial(size_t((boxes.rows + kRowsPerChunk - 1) / kRowsPerChunk));
  parallel_for(boxes.rows, kRowsPerChunk, [&](int64_t begin, int64_t end) {
    float* values = ciou != nullptr ? floats(ciou) + begin : nullptr;
    partial[size_t(begin / kRowsPerChunk)] =
        ciou_sum(slice(boxes, begin, end), slice(target, begin, end), floats(weight) + begin, values);
  });
  double total = 0;
  for (double p : partial) total += p;
  *floats(sum) = float(total);
}

void CpuBackend::ciou_loss_backward(RowsView boxes, RowsView target, const void* weight, const void* scale, RowsView dboxes) {
  if (!all_f32(boxes, target, dboxes)) return RefBackend::ciou_loss_backward(boxes, target, weight, scale, dboxes);
  parallel_for(boxes.rows, kRowsPerChunk, [&](int64_t begin, int64_t end) {
    RefBackend::ciou_loss_backward(slice(boxes, begin, end), slice(target, begin, end), floats(weight) + begin, scale,
                                   slice(dboxes, begin, end));
  });
}

void CpuBackend::dfl_loss(RowsView logits, RowsView target, const void* weight, void* sum) {
  if (!all_f32(logits, target)) return RefBackend::dfl_loss(logits, target, weight, sum);
  *floats(sum) = float(cpu::dfl_loss(logits, target, floats(weight)));
}

void CpuBackend::dfl_loss_backward(RowsView logits, RowsView target, const void* weight, const void* scale, RowsView dlogits,
                                   bool accumulate) {
  if (!all_f32(logits, target, dlogits)) return RefBackend::dfl_loss_backward(logits, target, weight, scale, dlogits, accumulate);
  cpu::dfl_loss_backward(logits, target, floats(weight), *floats(scale), dlogits, accumulate);
}

void CpuBackend::mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, void* sum) {
  if (!all_f32(coefficients, prototypes)) return RefBackend::mask_loss(coefficients, prototypes, masks, items, sum);
  *floats(sum) = float(cpu::mask_loss(coefficients, prototypes, masks, items));
}

void CpuBackend::mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                                    const void* scale, RowsView dcoefficients, ImageView dprototypes) {
  if (!all_f32(coefficients, prototypes, dcoefficients, dprototypes)) {
    return RefBackend::mask_loss_backward(coefficients, prototypes, masks, items, scale, dcoefficients, dprototypes);
  }
  const RowsView out = dprototypes.rows();
  fill({out.p, out.t, {out.rows, out.cols}, {out.pitch, 1}}, 0);
  cpu::mask_loss_backward(coefficients, prototypes, masks, items, *floats(scale), dcoefficients, dprototypes);
}

// ---- masks

void CpuBackend::detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) {
  cpu::detect(in, params, detections, coefficients);
}
void CpuBackend::mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  cpu::mask_patches(prototypes, coefficients, items, words);
}
void CpuBackend::each_mask(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, const TakeMask& take) {
  cpu::each_mask(prototypes, coefficients, items, take);
}

// ---- assignment

void CpuBackend::assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) {
  parallel_chunks(in.images, [&](int64_t image) { assign_image(in, params, image, target, score); });
}

// ---- optimizers

void CpuBackend::sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) {
  if (!all_f32(p, g, v)) return RefBackend::sgd(p, g, v, grad_scale, s);
  cpu::sgd(p, g, v, grad_scale, s);
}

void CpuBackend::adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) {
  if (!all_f32(p, g, m, v)) return RefBackend::adam(p, g, m, v, grad_scale, a);
  cpu::adam(p, g, m, v, grad_scale, a);
}

void CpuBackend::lerp(RowsView y, RowsView x, double weight) {
  if (!all_f32(y, x)) return RefBackend::lerp(y, x, weight);
  cpu::lerp(y, x, weight);
}

double CpuBackend::sum_of_squares(RowsView x) { return all_f32(x) ? cpu::sum_of_squares(x) : RefBackend::sum_of_squares(x); }

bool CpuBackend::all_finite(RowsView x) { return all_f32(x) ? cpu::all_finite(x) : RefBackend::all_finite(x); }

}  // namespace tessera
