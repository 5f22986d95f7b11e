// Convolution and its transpose: which kernels run (cuda/conv.h).
#include "cuda/conv.h"

#include <algorithm>
#include <array>

#include "cuda/conv_vendor.h"
#include "cuda/device/views.cuh"
#include "cuda/kernels.h"
#include "tensor/base/check.h"
#include "tensor/base/env.h"
#include "tensor/conv_choice.h"

namespace tessera::cuda {

namespace {
ConvKernels kernels_of(ConvChoice choice) {
  switch (choice) {
    case ConvChoice::kNaive: return ConvKernels::kNaive;
    case ConvChoice::kCudnn: return ConvKernels::kVendor;
    case ConvChoice::kDirect: return ConvKernels::kTiled;
    case ConvChoice::kAuto:
    case ConvChoice::kOwn: break;
  }
  return ConvKernels::kWgmma;
}

ConvKernels& in_use() {
  static ConvKernels kernels = kernels_of(conv_choice());
  return kernels;
}

// Of the layer at work, if it has a choice of its own.
ConvKernels kernels_here() {
  const ConvChoice layer = conv_choice_here();
  return layer == ConvChoice::kAuto ? in_use() : kernels_of(layer);
}

int64_t& enough() {
  static int64_t blocks = 256;  // about two for each multiprocessor of an H100
  return blocks;
}

// Shapes that the vendor's library refuses run on the kernels that run by default.
bool may_use_wgmma(ConvKernels kernels) { return kernels == ConvKernels::kWgmma || kernels == ConvKernels::kVendor; }

bool naive_in_use() { return in_use() == ConvKernels::kNaive; }
}  // namespace

ConvKernels conv_kernels() { return in_use(); }
void set_conv_kernels(ConvKernels kernels) { in_use() = kernels; }

namespace wgmma {
namespace {
unsigned kinds_of(std::string_view text) {
  // In the order of Kind.
  constexpr std::array<std::string_view, 6> kNames = {"patches", "deep", "stride2", "pointwise", "tiles", "filters"};
  unsigned kinds = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    const std::string_view name = text.substr(0, end);
    const auto at = std::find(kNames.begin(), kNames.end(), name);
    if (at == kNames.end()) {
      throw Error(ErrorCode::kUsage, fmt::format("TESSERA_CUDA_WITHOUT: {}, expected some of {}", name, fmt::join(kNames, ",")));
    }
    kinds |= 1u << (at - kNames.begin());
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return kinds;
}
unsigned& left_out() {
  static unsigned kinds = kinds_of(env("TESSERA_CUDA_WITHOUT").value_or(""));
  return kinds;
}
}  // namespace

bool runs(Kind kind) { return (left_out() >> int(kind) & 1) == 0; }
void leave_out(std::string_view kinds) { left_out() = kinds_of(kinds); }
}  // namespace wgmma

bool in_packs(const ImageView& v) { return size_t(v.c) * size_of(v.t) % 16 == 0 && rows_are_aligned(v.rows()); }

int64_t enough_blocks() { return enough(); }
void set_enough_blocks(int64_t blocks) { enough() = blocks; }

void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) {
  conv2d(x, w, y, p, epilogue, nullptr);
}
void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue, ResultStats* stats) {
  const ConvKernels kernels = kernels_here();
  if (y.t != x.t) return (kernels == ConvKernels::kNaive ? naive::conv2d : tiled::conv2d_wide)(x, w, y, p, epilogue);
  if (kernels == ConvKernels::kVendor && vendor::conv2d(x, w, y, p, epilogue)) return;
  if (may_use_wgmma(kernels) && wgmma::conv2d(x, w, y, p, epilogue, stats)) return;
  if (kernels == ConvKernels::kNaive) return naive::conv2d(x, w, y, p, epilogue);
  tiled::conv2d(x, w, y, p, epilogue, stats);
}
void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) {
  const ConvKernels kernels = kernels_here();
  if (kernels == ConvKernels::kVendor && vendor::conv2d_backward_data(dy, w, dx, p, accumulate)) return;
  if (may_use_wgmma(kernels) && wgmma::conv2d_backward_data(dy, w, dx, p, accumulate)) return;
  (kernels == ConvKernels::kNaive ? naive::conv2d_backward_data : tiled::conv2d_backward_data)(dy, w, dx, p, accumulate);
}
void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) {
  const ConvKernels kernels = kernels_here();
  if (kernels == ConvKernels::kVendor && vendor::conv2d_backward_weight(x, dy, dw, p, accumulate)) return;
  if (may_use_wgmma(kernels) && wgmma::conv2d_backward_weight(x, dy, dw, p, accumulate)) return;
  (kernels == ConvKernels::kNaive ? naive::conv2d_backward_weight : tiled::conv2d_backward_weight)(x, dy, dw, p, accumulate);
}
void bias_backward(RowsView dy, void* dbias, bool accumulate) {
  (naive_in_use() ? naive::bias_backward : tiled::bias_backward)(dy, dbias, accumulate);
}
void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) {
  if (may_use_wgmma(in_use()) && wgmma::conv_transpose2x2(x, w, y, bias)) return;
  (naive_in_use() ? naive::conv_transpose2x2 : tiled::conv_transpose2x2)(x, w, y, bias);
}
void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) {
  if (may_use_wgmma(in_use()) && wgmma::conv_transpose2x2_backward_data(dy, w, dx, accumulate)) return;
  (naive_in_use() ? naive::conv_transpose2x2_backward_data : tiled::conv_transpose2x2_backward_data)(dy, w, dx, accumulate);
}
void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) {
  if (may_use_wgmma(in_use()) && wgmma::conv_transpose2x2_backward_weight(x, dy, dw, accumulate)) return;
  (naive_in_use() ? naive::conv_transpose2x2_backward_weight : tiled::conv_transpose2x2_backward_weight)(x, dy, dw, accumulate);
}

}  // namespace tessera::cuda
