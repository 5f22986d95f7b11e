// The vectorised backend with the convolutions of the reference: --conv naive.
#pragma once

#include "tensor/cpu/cpu_backend.h"

namespace tessera {

class ReferenceConvBackend : public CpuBackend {
 public:
  int64_t packed_filter_size(FilterView, const ConvParams&) override { return 0; }
  void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) override {
    RefBackend::conv2d(x, w, y, p, epilogue);
  }
  void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps, const RunningStatsView& running,
                         void* mean, void* rstd) override {
    RefBackend::conv2d_with_stats(x, w, y, p, eps, running, mean, rstd);
  }
  void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) override {
    RefBackend::conv2d_backward_data(dy, w, dx, p, accumulate);
  }
  void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) override {
    RefBackend::conv2d_backward_weight(x, dy, dw, p, accumulate);
  }
  void bias_backward(RowsView dy, void* dbias, bool accumulate) override { RefBackend::bias_backward(dy, dbias, accumulate); }
  void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) override {
    RefBackend::conv_transpose2x2(x, w, y, bias);
  }
  void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) override {
    RefBackend::conv_transpose2x2_backward_data(dy, w, dx, accumulate);
  }
  void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) override {
    RefBackend::conv_transpose2x2_backward_weight(x, dy, dw, accumulate);
  }
};

}  // namespace tessera
