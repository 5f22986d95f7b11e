// Whole-arena kernels of the optimizers: one call updates a flat buffer of all parameters of a group.
#pragma once

#include "tensor/tensor.h"

namespace tessera {

struct SgdParams {
  double lr, momentum, weight_decay;
  bool nesterov;
  bool first_step;  // velocity starts as the gradient
};
struct AdamParams {
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled;   // true: AdamW (Loshchilov and Hutter 2019); false: Adam with L2 in the gradient (Kingma and Ba 2015)
  int64_t step;     // 1 for the first update
};

class OptimOps {
 public:
  virtual ~OptimOps() = default;
  // g' = g*grad_scale + wd*p; v = momentum*v + g' (v = g' at the first step); p -= lr * (nesterov ? g' + momentum*v : v).
  virtual void sgd(RowsView p, RowsView g, RowsView v, double grad_scale, const SgdParams& s) = 0;
  // m = b1 m + (1-b1) g'; v = b2 v + (1-b2) g'^2; p -= lr/(1-b1^t) m / (sqrt(v)/sqrt(1-b2^t) + eps); decoupled: wd by p *= 1 - lr*wd.
  virtual void adam(RowsView p, RowsView g, RowsView m, RowsView v, double grad_scale, const AdamParams& a) = 0;
  virtual void lerp(RowsView y, RowsView x, double weight) = 0;  // y = (1 - weight) y + weight x (EMA: weight = 1 - decay)
  virtual double sum_of_squares(RowsView x) = 0;                 // in double, fixed order
  virtual bool all_finite(RowsView x) = 0;
};

namespace ops {
void sgd(const Tensor& p, const Tensor& g, const Tensor& v, double grad_scale, const SgdParams& s);
void adam(const Tensor& p, const Tensor& g, const Tensor& m, const Tensor& v, double grad_scale, const AdamParams& a);
void lerp(const Tensor& y, const Tensor& x, double weight);
double sum_of_squares(const Tensor& x);
bool all_finite(const Tensor& x);
}  // namespace ops

}  // namespace tessera
