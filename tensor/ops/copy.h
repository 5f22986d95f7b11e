// Fill, strided copy and cast.
#pragma once

#include "tensor/tensor.h"

namespace tessera {

class CopyOps {
 public:
  virtual ~CopyOps() = default;
  virtual void fill(const StridedView& y, double value) = 0;
  // y = x elementwise; shapes equal; types convert as a C++ cast does (float to integer truncates). No overlap.
  virtual void copy(const StridedView& x, const StridedView& y) = 0;
};

namespace ops {
void fill(const Tensor& y, double value);
void copy(const Tensor& x, const Tensor& y);
// Concatenation along `axis` into a new dense tensor.
Tensor concat(const std::vector<Tensor>& parts, int axis);
}  // namespace ops

}  // namespace tessera
