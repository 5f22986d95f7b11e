// Convolutions and matrix products of the CPU backend: channels last, register-tiled for AVX-512 and AVX2 and chosen at run time;
// 3x3 convolutions take a quarter of the products where that pays, with stride 2 half (winograd.h), all others are direct. Formulas and
// layouts are those of tensor/ops/conv.h and tensor/ops/matmul.h. Views hold f32; those of convolutions may hold bf16 instead, which
// is multiplied as such where that is faster (multiplies_bf16() in conv_tile.h) and as f32 elsewhere.
#pragma once

#include "tensor/ops/conv.h"

namespace tessera::cpu {

// The functions run on the threads of parallel_chunks() and give bitwise equal results for any number of them. They may differ in
// the last bits between instruction sets. An output never overlaps an input; padding and stride are any that the contract allows.
void conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue);
// conv2d without an epilogue, and mean and biased variance of the channels of y as it is stored, which has pixels.
void conv2d_with_stats(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, double* sums,
                       double* squares);
// Packed for conv2d (ConvOps::pack_filter); none for bf16 where it is multiplied as f32.
int64_t packed_filter_size(const FilterView& w, const ConvParams& p);
void pack_filter(const FilterView& w, const ConvParams& p, void* packed);
void conv2d_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate);
void conv2d_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate);
void bias_backward(const RowsView& dy, float* dbias, bool accumulate);

// What these take beside their arguments (ConvOps::conv2d_scratch), next to the code that takes it.
ConvScratch conv2d_scratch(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p);
ConvScratch conv_transpose2x2_scratch(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y);

void conv_transpose2x2(const ImageView& x, const FilterView& w, const ImageView& y, const float* bias);
void conv_transpose2x2_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, bool accumulate);
void conv_transpose2x2_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, bool accumulate);

void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate);

}  // namespace tessera::cpu
