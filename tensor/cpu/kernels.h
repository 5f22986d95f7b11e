// The vectorised kernels of the CPU backend as free functions; conv.h has those of convolution and matrix products. They take f32
// views, and those of pointwise, reduce, norm, pool, softmax and index also bf16 ones (all views of a call of one type), and have
// the contracts of the methods of the same name in tensor/ops/*.h. Those that return bool do nothing and return false for layouts
// or types that they do not handle; the backend then runs the reference.
//
// All cut their work by the problem alone (tensor/base/parallel.h), so results are bitwise equal for any number of threads.
#pragma once

#include "tensor/ops/copy.h"
#include "tensor/ops/detect.h"
#include "tensor/ops/index.h"
#include "tensor/ops/losses.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/optim.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/pool.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace tessera::cpu {

// pointwise.cpp
void unary(UnaryOp op, RowsView x, RowsView y);
void unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate);
bool binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y);
void add_scaled(RowsView x, double alpha, RowsView y);
void scale(RowsView x, double alpha, RowsView y);

// copy.cpp
bool fill(const StridedView& y, double value);
bool copy(const StridedView& x, const StridedView& y);

// reduce.cpp
bool reduce(ReduceOp op, const StridedView& x, const StridedView& y);

// norm.cpp
void batch_norm_moments(const ImageView& x, double* sums, double* squares);  // about the mean
void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y);
void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, float* dgamma, float* dbeta,
                         bool accumulate);

// pool.cpp
void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p);
void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate);
void upsample2x(ImageView x, ImageView y);
void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate);
void resize_bilinear(ImageView x, ImageView y);  // f32

// softmax.cpp
void softmax(RowsView x, RowsView y, bool log);
void softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log);

// index.cpp
void gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y);  // any type
void scatter_add_rows(RowsView x, const int64_t* index, RowsView y);                   // of one table

// losses.cpp
double bce_with_logits(RowsView x, RowsView target);
void bce_with_logits_backward(RowsView x, RowsView target, double scale, RowsView dx, bool accumulate);
double bce_with_labels(RowsView x, const int32_t* label, const float* score);
void bce_with_labels_backward(RowsView x, const int32_t* label, const float* score, double scale, RowsView dx);
double dfl_loss(RowsView logits, RowsView target, const float* weight);
void dfl_loss_backward(RowsView logits, RowsView target, const float* weight, double scale, RowsView dlogits, bool accumulate);
double mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items);
void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, double scale,
                        RowsView dcoefficients, ImageView dprototypes);

// detect.cpp
void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients);

// mask_patches.cpp
void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words);
void each_mask(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, const TakeMask& take);

// optim.cpp
void sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s);
void adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a);
void lerp(RowsView y, RowsView x, double weight);
double sum_of_squares(RowsView x);
bool all_finite(RowsView x);

}  // namespace tessera::cpu
