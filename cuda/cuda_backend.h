// Every op on a CUDA device: thin forwards to the launchers of kernels.h, one .cu file for each family.
#pragma once

#include <string_view>

#include "tensor/backend.h"

namespace tessera {

class CudaBackend : public Backend {
 public:
  std::string_view name() const override { return "cuda"; }
  Device::Kind device_kind() const override { return Device::Kind::kCuda; }
  CachingAllocator& allocator() override;
  int64_t available_bytes() override;
  void synchronize() override;
  std::unique_ptr<Recorder> recorder() override;        // graph_capture.cpp
  int calls_beside() const override;                    // side_work.cpp
  void join_calls_beside() override;
  std::unique_ptr<UploadRing> upload_ring() override;  // upload_ring.cpp
  void upload(void* device, const void* host, size_t bytes) override;
  void download(void* host, const void* device, size_t bytes) override;

  // copy.cu
  void fill(const StridedView& y, double value) override;
  void copy(const StridedView& x, const StridedView& y) override;

  // pointwise.cu
  void unary(UnaryOp op, RowsView x, RowsView y) override;
  void unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) override;
  void binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) override;
  void add_scaled(RowsView x, double alpha, RowsView y) override;
  void scale(RowsView x, double alpha, RowsView y) override;

  // reduce.cu
  void reduce(ReduceOp op, const StridedView& x, const StridedView& y) override;
  void argmax(RowsView x, RowsView index) override;
  void topk(RowsView x, RowsView values, RowsView indices) override;

  // matmul.cu
  void matmul(const MatrixView& a, const MatrixView& b, const MatrixView& c, bool accumulate) override;

  // conv.cu
  void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) override;
  bool conv2d_writes_wide() const override { return true; }
  void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) override;
  void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) override;
  void bias_backward(RowsView dy, void* dbias, bool accumulate) override;
  void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) override;
  void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) override;
  void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) override;

  // pool.cu
  void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) override;
  void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) override;
  void upsample2x(ImageView x, ImageView y) override;
  void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) override;
  void resize_bilinear(ImageView x, ImageView y) override;

  // norm.cu
  void batch_norm_stats(ImageView x, double eps, const RunningStatsView& running, void* mean, void* rstd) override;
  void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps, const RunningStatsView& running,
                         void* mean, void* rstd) override;
  bool joins_conv2d_and_stats() const override { return true; }
  void batch_norm_rstd(RowsView var, double eps, void* rstd) override;
  void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) override;
  void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma, void* dbeta,
                           bool accumulate) override;
  void batch_norm_part(ImageView x, double* part) override;
  void batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, DType type, void* mean, void* rstd) override;
  void batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd, void* slope,
                             void* offset) override;

  // softmax.cu
  void softmax(RowsView x, RowsView y, bool log) override;
  void softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) override;

  // index.cu
  void gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) override;
  void scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) override;

  // losses.cu
  bool losses_take_narrow() const override { return true; }
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

  // assign.cu
  void assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) override;
  void collect_positives(const AssignInput& in, const int32_t* mask_ids, const int32_t* target, const float* score,
                         const PositivesParams& params, const PositivesView& out) override;

  // detect.cu, mask_patches.cu
  void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) override;
  int64_t detect_scratch_bytes(const DetectInput& in, const DetectParams& params) override;
  void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) override;

  // optim.cu
  void sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) override;
  void adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) override;
  void lerp(RowsView y, RowsView x, double weight) override;
  double sum_of_squares(RowsView x) override;
  bool all_finite(RowsView x) override;
  void update(const UpdateArrays<RowsView>& arrays, const double* settings, double* state, const UpdateParams& p) override;

  // random.cu
  void uniform(RowsView y, const RandomStream& s, double low, double high) override;
  void normal(RowsView y, const RandomStream& s, double mean, double deviation) override;
};

}  // namespace tessera
