// Batch normalisation over all axes but the last, alone or fused with SiLU and a residual sum (Ioffe and Szegedy 2015).
//
//   z = (x - mean) * rstd * gamma + beta,  y = act(z) + residual,  rstd = 1 / sqrt(var + eps)
//
// The fused form keeps only x, mean and rstd for the backward pass and computes z and its sigmoid again.
//
// x, y, dy, dx and residual are of one floating type. Per-channel vectors are of that type too, but f32 when it has 16 bits: sums
// and statistics are formed in f32 or better, and what is stored in 16 bits is rounded once.
#pragma once

#include "tensor/ops/conv.h"
#include "tensor/tensor.h"

namespace tessera {

// Per-channel vectors, C values each, of wide_of(the type of x).
struct BatchNormView {
  const void* mean;
  const void* rstd;
  const void* gamma;
  const void* beta;
};

// The averages that evaluation normalises with, C values each, of the type of the statistics: mean and unbiased variance of the
// batches, each moved from what it was by `momentum` of the way to the batch's. Null: none are kept.
struct RunningStatsView {
  void* mean = nullptr;
  void* var = nullptr;
  double momentum = 0;
};

class NormOps {
 public:
  virtual ~NormOps() = default;
  // mean and rstd of each channel over the pixels, with the biased variance, of wide_of(the type of x); moves the running
  // statistics. Two-pass or shifted: no cancellation when |mean| >> deviation. On the CPU an image's sums depend on that image
  // alone and are joined in double: the order of images, and on which rank they are, shows in a last bit at most.
  virtual void batch_norm_stats(ImageView x, double eps, const RunningStatsView& running, void* mean, void* rstd) = 0;
  // conv2d without an epilogue, then batch_norm_stats of the pixels of y as they are stored.
  virtual void conv2d_with_stats(ImageView x, FilterView w, ImageView y, const ConvParams& p, double eps,
                                 const RunningStatsView& running, void* mean, void* rstd) = 0;
  // Whether the two in one call are less work than in two.
  virtual bool joins_conv2d_and_stats() const { return false; }
  // rstd of running variances (one row).
  virtual void batch_norm_rstd(RowsView var, double eps, void* rstd) = 0;
  virtual void batch_norm_apply(RowsView x, const BatchNormView& bn, Activation act, RowsView residual /* p null: none */,
                                RowsView y) = 0;
  // Gradients through the batch statistics: dx (written), dgamma and dbeta (added to when accumulate). dx may be dy.
  virtual void batch_norm_backward(RowsView x, RowsView dy, const BatchNormView& bn, Activation act, RowsView dx, void* dgamma,
                                   void* dbeta, bool accumulate) = 0;

  // Several ranks with some of the rows each. What one tells the others, 1 + 2 C values in f64: its number of rows, then
  // each channel's sum, then its sum of squares about the mean. Not rounded, so that ranks round once, as one rank does.
  virtual void batch_norm_part(ImageView x, double* part) = 0;
  // batch_norm_stats of the rows of all ranks, of `type`, from their parts (ranks, 1 + 2 C) in f64. From means and squares about
  // them, so nothing cancels.
  virtual void batch_norm_join(RowsView parts, double eps, const RunningStatsView& running, DType type, void* mean, void* rstd) = 0;
  // batch_norm_backward took the sums of rank `own` where those of all ranks belong. With sums (ranks, 2 C) of dgamma and dbeta,
  // dx + xhat * slope + offset is right: slope = gamma rstd (dgamma / rows of `own` - those of all), offset alike from dbeta.
  virtual void batch_norm_correction(RowsView parts, RowsView sums, int64_t own, const void* gamma, const void* rstd, void* slope,
                                     void* offset) = 0;
};

namespace ops {
struct BatchNormStats {
  Tensor mean, rstd;
};
struct RunningStats {
  Tensor mean, var;  // undefined: none are kept
  double momentum = 0;
};
BatchNormStats batch_norm_stats(const Tensor& x, double eps, const RunningStats& running = {});
struct ConvWithStats {
  Tensor y;
  BatchNormStats stats;
};
ConvWithStats conv2d_with_stats(const Tensor& x, const Tensor& w, const ConvParams& p, double eps,
                                const RunningStats& running = {});
Tensor batch_norm_rstd(const Tensor& var, double eps);
// mean, rstd, gamma, beta: (C), of wide_of(the type of x), as the statistics are. residual may be undefined.
Tensor batch_norm_apply(const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& gamma, const Tensor& beta,
                        Activation act, const Tensor& residual = {}, const Tensor& into = {});
// Returns dx; adds into (or overwrites) dgamma, dbeta, which are of wide_of(the type of x).
Tensor batch_norm_backward(const Tensor& x, const Tensor& dy, const Tensor& mean, const Tensor& rstd, const Tensor& gamma,
                           const Tensor& beta, Activation act, const Tensor& dgamma, const Tensor& dbeta, bool accumulate);

Tensor batch_norm_part(const Tensor& x);
BatchNormStats batch_norm_join(const Tensor& parts, DType type, double eps, const RunningStats& running = {});
struct BatchNormCorrection {
  Tensor slope, offset;
};
// sums (ranks, 2 C).
BatchNormCorrection batch_norm_correction(const Tensor& parts, const Tensor& sums, int64_t own, const Tensor& gamma,
                                          const Tensor& rstd);
}  // namespace ops

}  // namespace tessera
