#include "tensor/ops/copy.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

void fill(const Tensor& y, double value) {
  check_defined("fill", "y", y);
  y.bump_version();
  backend_for(y.device()).fill(y.strided(), value);
}

void copy(const Tensor& x, const Tensor& y) {
  check_defined("copy", "x", x);
  check_defined("copy", "y", y);
  TESSERA_CHECK(x.shape() == y.shape() && x.device() == y.device(),
                "copy: got {} on {} to {} on {}, expected equal shapes on one device", describe(x), to_string(x.device()),
                describe(y), to_string(y.device()));
  y.bump_version();
  backend_for(y.device()).copy(x.strided(), y.strided());
}

Tensor concat(const std::vector<Tensor>& parts, int axis) {
  TESSERA_CHECK(!parts.empty(), "concat: got no tensors, expected at least one");
  check_defined("concat", "part 0", parts[0]);
  axis = normalize_axis(axis, parts[0].rank());
  Shape shape = parts[0].shape();
  shape[axis] = 0;
  for (const Tensor& part : parts) {
    Shape fits = parts[0].shape();
    if (part.defined() && part.rank() == fits.rank()) fits[axis] = part.size(axis);
    check_like("concat", "part", part, fits, parts[0]);
    shape[axis] += part.size(axis);
  }
  Tensor y = Tensor::empty(shape, parts[0].dtype(), parts[0].device());
  int64_t at = 0;
  for (const Tensor& part : parts) {
    copy(part, y.narrow(axis, at, part.size(axis)));
    at += part.size(axis);
  }
  return y;
}

}  // namespace tessera::ops
