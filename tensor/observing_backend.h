// A backend that stands in front of another one and sees every call with what it costs, read from the views. What happens to the
// call is up to a subclass: Profiler times it, a memory plan leaves it out. Makes itself felt on one thread only, through
// BackendGuard, so that it costs nothing where none is in use.
#pragma once

#include <functional>

#include "tensor/backend.h"

namespace tessera {

// What a call does, as a table of times is split up.
enum class OpKind : uint8_t {
  kForward,
  kBackwardData,
  kBackwardWeights,
  kNorm,
  kNormBackward,
  kPointwise,
  kLoss,
  kOptimizer,
  kTransfer
};

// operations: of convolutions and matrix products, a multiply-add counts two, borders as if they were inside; 0 for what memory
// limits. bytes: every tensor once, twice where it is added to.
struct OpCost {
  OpKind kind;
  double operations = 0;
  double bytes = 0;
};

class ObservingBackend : public Backend {
 public:
  explicit ObservingBackend(Backend& inner) : inner_(inner) {}

  std::string_view name() const override { return inner_.name(); }
  Device::Kind device_kind() const override { return inner_.device_kind(); }
  CachingAllocator& allocator() override { return inner_.allocator(); }
  int64_t available_bytes() override { return inner_.available_bytes(); }
  void synchronize() override { inner_.synchronize(); }
  int calls_beside() const override { return inner_.calls_beside(); }
  void join_calls_beside() override { inner_.join_calls_beside(); }
  void upload(void* device, const void* host, size_t bytes) override;
  void download(void* host, const void* device, size_t bytes) override;

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

  int64_t packed_filter_size(FilterView w, const ConvParams& p) override { return inner_.packed_filter_size(w, p); }
  void pack_filter(FilterView w, const ConvParams& p, void* packed) override;
  void conv2d(ImageView x, FilterView w, ImageView y, const ConvParams& p, const ConvEpilogue& epilogue) override;
  bool conv2d_writes_wide() const override { return inner_.conv2d_writes_wide(); }
  void conv2d_backward_data(ImageView dy, FilterView w, ImageView dx, const ConvParams& p, bool accumulate) override;
  void conv2d_backward_weight(ImageView x, ImageView dy, FilterView dw, const ConvParams& p, bool accumulate) override;
  void bias_backward(RowsView dy, void* dbias, bool accumulate) override;
  void conv_transpose2x2(ImageView x, FilterView w, ImageView y, const void* bias) override;
  void conv_transpose2x2_backward_data(ImageView dy, FilterView w, ImageView dx, bool accumulate) override;
  void conv_transpose2x2_backward_weight(ImageView x, ImageView dy, FilterView dw, bool accumulate) override;

  void max_pool2d(ImageView x, ImageView y, ImageView index, const PoolParams& p) override;
  void max_pool2d_backward(ImageView dy, ImageView index, ImageView dx, const PoolParams& p, bool accumulate) override;
  void upsample2x(ImageView x, ImageView y) override;
  void upsample2x_backward(ImageView dy, ImageView dx, bool accumulate) override;
  void resize_bilinear(ImageView x, ImageView y) override;

  void batch_norm_stats(ImageView x, double eps, const RunningStatsView& running, void* mean, void* rstd) override;
  void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps, const RunningStatsView& running,
                         void* mean, void* rstd) override;
  bool joins_conv2d_and_stats() const override { return inner_.joins_conv2d_and_stats(); }
  void batch_norm_rstd(RowsView var, double eps, void* rstd) override;
  void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual, RowsView y) override;
  void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma, void* dbeta,
                           bool accumulate) override;
  void batch_norm_part(ImageView x, double* part) override;
  void batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, DType type, void* mean, void* rstd) override;
  void batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd, void* slope,
                             void* offset) override;

  void softmax(RowsView x, RowsView y, bool log) override;
  void softmax_backward(RowsView y, RowsView dy, RowsView dx, bool log) override;

  void gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) override;
  void scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) override;

  bool losses_take_narrow() const override { return inner_.losses_take_narrow(); }
  void bce_with_logits(RowsView x, RowsView target, void* result) override;
  void bce_with_logits_backward(RowsView x, RowsView target, const void* scale, RowsView dx, bool accumulate) override;
  void bce_with_labels(std::span<const RowsView> x, const int32_t* label, const float* score, void* sum) override;
  void bce_with_labels_backward(std::span<const RowsView> x, const int32_t* label, const float* score, const void* scale,
                                std::span<const RowsView> dx) override;
  void ciou_loss(RowsView boxes, RowsView target, const void* weight, void* ciou, void* result) override;
  void ciou_loss_backward(RowsView boxes, RowsView target, const void* weight, const void* scale, RowsView dboxes) override;
  void dfl_loss(RowsView logits, RowsView target, const void* weight, void* result) override;
  void dfl_loss_backward(RowsView logits, RowsView target, const void* weight, const void* scale, RowsView dlogits,
                         bool accumulate) override;
  void mask_loss(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items, void* result) override;
  void mask_loss_backward(RowsView coefficients, ImageView prototypes, const int32_t* masks, const MaskLossItems& items,
                          const void* scale, RowsView dcoefficients, ImageView dprototypes) override;

  void assign(const AssignInput& in, const AssignParams& params, int32_t* target, float* score) override;
  void collect_positives(const AssignInput& in, const int32_t* mask_ids, const int32_t* target, const float* score,
                         const PositivesParams& params, const PositivesView& out) override;

  void detect(const DetectInput& in, const DetectParams& params, float* detections, float* coefficients) override;
  int64_t detect_scratch_bytes(const DetectInput& in, const DetectParams& params) override {
    return inner_.detect_scratch_bytes(in, params);
  }
  void mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) override;
  void each_mask(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, const TakeMask& take) override;

  void sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) override;
  void adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) override;
  void lerp(RowsView y, RowsView x, double weight) override;
  double sum_of_squares(RowsView x) override;
  bool all_finite(RowsView x) override;
  void update(const UpdateArrays<RowsView>& arrays, const double* settings, double* state, const UpdateParams& p) override;

  void uniform(RowsView y, const RandomStream& s, double low, double high) override;
  void normal(RowsView y, const RandomStream& s, double mean, double deviation) override;

 protected:
  // `run` makes the call; what it returns is 0, or true, if it is not run.
  virtual void observe(const OpCost& cost, const std::function<void()>& run) = 0;
  Backend& inner() { return inner_; }

 private:
  Backend& inner_;
};

}  // namespace tessera
