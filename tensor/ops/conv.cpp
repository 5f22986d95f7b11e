#include "tensor/ops/conv.h"

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
// The filter must be dense; parameters always are, so a copy here is rare.
Tensor dense_filter(std::string_view op, const Tensor& w, const Tensor& like) {
  check_type_and_device(op, "w", w, like.dtype(), like.device());
  TESSERA_CHECK(w.rank() == 4, "{}: got w {}, expected (O, kH, kW, I)", op, describe(w));
  return w.contiguous();
}

void check_image(std::string_view op, std::string_view what, const Tensor& x) {
  check_floating(op, what, x);
  TESSERA_CHECK(x.rank() == 4, "{}: got {} {}, expected (N, H, W, C)", op, what, describe(x));
}

void check_filter_gradient(std::string_view op, const Tensor& dw, const Tensor& x) {
  check_type_and_device(op, "dw", dw, wide_of(x.dtype()), x.device());
  TESSERA_CHECK(dw.is_dense(), "{}: got dw {} with strides {}, expected a dense tensor", op, describe(dw), to_string(dw.strides()));
  dw.bump_version();
}

Shape transpose_shape(const Shape& x, const Shape& w) {
  TESSERA_CHECK(x.rank() == 4 && w.rank() == 4 && w[1] == 2 && w[2] == 2 && w[3] == x[3],
                "conv_transpose2x2: got x {} and w {}, expected (N, H, W, I) and (O, 2, 2, I)", to_string(x), to_string(w));
  return {x[0], 2 * x[1], 2 * x[2], w[0]};
}
}  // namespace

Shape conv2d_shape(const Shape& x, const Shape& w, const ConvParams& p) {
  TESSERA_CHECK(x.rank() == 4 && w.rank() == 4 && x[3] == w[3],
                "conv2d: got x {} and w {}, expected (N, H, W, I) and (O, kH, kW, I)", to_string(x), to_string(w));
  TESSERA_CHECK(p.stride >= 1 && p.pad >= 0, "conv2d: got stride {} and pad {}, expected stride >= 1 and pad >= 0", p.stride,
                p.pad);
  TESSERA_CHECK(x[1] + 2 * p.pad >= w[1] && x[2] + 2 * p.pad >= w[2],
                "conv2d: got x {} with pad {}, expected at least the filter {}", to_string(x), p.pad, to_string(w));
  return {x[0], (x[1] + 2 * p.pad - w[1]) / p.stride + 1, (x[2] + 2 * p.pad - w[2]) / p.stride + 1, w[0]};
}

PackedFilter::PackedFilter(const Tensor& w, const ConvParams& p)
    : shape_(w.shape()), params_(p), data_(dense_filter("conv2d", w, w)) {
  Backend& backend = backend_for(w.device());
  const FilterView plain = data_.filter();
  const int64_t size = backend.packed_filter_size(plain, p);
  if (size == 0) return;
  const Tensor packed = Tensor::empty({size}, w.dtype(), w.device());
  backend.pack_filter(plain, p, packed.raw());
  data_ = packed;
  backend_ = backend.name();
}

FilterView PackedFilter::view(std::string_view backend) const {
  if (backend_.empty()) return data_.filter();
  TESSERA_CHECK(backend == backend_, "conv2d: got a filter packed for backend {}, expected one for {}", backend_, backend);
  return {nullptr, data_.dtype(), shape_[0], shape_[1], shape_[2], shape_[3], data_.raw()};
}

namespace {
// Into y, which is there.
Tensor run_conv2d(const Tensor& x, const FilterView& w, const Shape& shape, const ConvParams& p, const Tensor& bias, Activation act,
                  const Tensor& residual, Tensor y) {
  ConvEpilogue epilogue;
  epilogue.activation = act;
  if (bias.defined()) {
    check_vector("conv2d", "bias", bias, shape[3], wide_of(x.dtype()), x.device());
    epilogue.bias = bias.raw();
  }
  Tensor addend;
  if (residual.defined()) {
    check_like("conv2d", "residual", residual, shape, x);
    addend = readable(residual);
    epilogue.residual = addend.image();
  }
  const Tensor in = readable(x);
  backend_for(x.device()).conv2d(in.image(), w, y.image(), p, epilogue);
  return y;
}
}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& w, const ConvParams& p, const Tensor& bias, Activation act, const Tensor& residual,
              const Tensor& into) {
  check_image("conv2d", "x", x);
  const Tensor filter = dense_filter("conv2d", w, x);
  const Shape shape = conv2d_shape(x.shape(), w.shape(), p);
  return run_conv2d(x, filter.filter(), shape, p, bias, act, residual, output("conv2d", into, shape, x));
}

Tensor conv2d(const Tensor& x, const PackedFilter& w, const Tensor& bias, Activation act, const Tensor& residual,
              const Tensor& into) {
  check_image("conv2d", "x", x);
  TESSERA_CHECK(w.defined(), "conv2d: got no filter");
  check_type_and_device("conv2d", "w", w.data(), x.dtype(), x.device());
  const FilterView filter = w.view(backend_for(x.device()).name());
  const Shape shape = conv2d_shape(x.shape(), w.shape(), w.params());
  return run_conv2d(x, filter, shape, w.params(), bias, act, residual, output("conv2d", into, shape, x));
}

Tensor conv2d_wide(const Tensor& x, const Tensor& w, const ConvParams& p, const Tensor& bias) {
  check_image("conv2d", "x", x);
  const DType wide = wide_of(x.dtype());
  if (wide == x.dtype() || !backend_for(x.device()).conv2d_writes_wide()) return conv2d(x.to(wide), w.to(wide), p, bias);
  const Tensor filter = dense_filter("conv2d", w, x);
  const Shape shape = conv2d_shape(x.shape(), w.shape(), p);
  return run_conv2d(x, filter.filter(), shape, p, bias, Activation::kNone, {}, Tensor::empty(shape, wide, x.device()));
}

Tensor conv2d_backward_data(const Tensor& dy, const Tensor& w, const Shape& x_shape, const ConvParams& p, const Tensor& into,
                            bool accumulate) {
  check_image("conv2d_backward_data", "dy", dy);
  const Tensor filter = dense_filter("conv2d_backward_data", w, dy);
  check_like("conv2d_backward_data", "dy", dy, conv2d_shape(x_shape, w.shape(), p), dy);
  TESSERA_CHECK(into.defined() || !accumulate, "conv2d_backward_data: got accumulate without into, expected a tensor to add to");
  const Tensor gradient = readable(dy);
  Tensor dx = output("conv2d_backward_data", into, x_shape, dy);
  backend_for(dy.device()).conv2d_backward_data(gradient.image(), filter.filter(), dx.image(), p, accumulate);
  return dx;
}

void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Tensor& dw, const ConvParams& p, bool accumulate) {
  check_image("conv2d_backward_weight", "x", x);
  check_defined("conv2d_backward_weight", "dw", dw);
  check_like("conv2d_backward_weight", "dy", dy, conv2d_shape(x.shape(), dw.shape(), p), x);
  check_filter_gradient("conv2d_backward_weight", dw, x);
  const Tensor in = readable(x);
  const Tensor gradient = readable(dy);
  backend_for(x.device()).conv2d_backward_weight(in.image(), gradient.image(), dw.filter(), p, accumulate);
}

void bias_backward(const Tensor& dy, const Tensor& dbias, bool accumulate) {
  check_floating("bias_backward", "dy", dy);
  TESSERA_CHECK(dy.rank() >= 1, "bias_backward: got dy {}, expected (..., C)", describe(dy));
  check_vector("bias_backward", "dbias", dbias, dy.size(-1), wide_of(dy.dtype()), dy.device());
  dbias.bump_version();
  const Tensor gradient = readable(dy);
  backend_for(dy.device()).bias_backward(gradient.rows(), dbias.raw(), accumulate);
}

Tensor conv_transpose2x2(const Tensor& x, const Tensor& w, const Tensor& bias) {
  check_image("conv_transpose2x2", "x", x);
  const Tensor filter = dense_filter("conv_transpose2x2", w, x);
  const Shape shape = transpose_shape(x.shape(), w.shape());
  if (bias.defined()) check_vector("conv_transpose2x2", "bias", bias, shape[3], wide_of(x.dtype()), x.device());
  const Tensor in = readable(x);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  backend_for(x.device()).conv_transpose2x2(in.image(), filter.filter(), y.image(), bias.defined() ? bias.raw() : nullptr);
  return y;
}

Tensor conv_transpose2x2_backward_data(const Tensor& dy, const Tensor& w) {
  check_image("conv_transpose2x2_backward_data", "dy", dy);
  const Tensor filter = dense_filter("conv_transpose2x2_backward_data", w, dy);
  const Shape shape{dy.shape()[0], dy.shape()[1] / 2, dy.shape()[2] / 2, w.shape()[3]};
  check_like("conv_transpose2x2_backward_data", "dy", dy, transpose_shape(shape, w.shape()), dy);
  const Tensor gradient = readable(dy);
  Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
  backend_for(dy.device()).conv_transpose2x2_backward_data(gradient.image(), filter.filter(), dx.image(), /*accumulate=*/false);
  return dx;
}

void conv_transpose2x2_backward_weight(const Tensor& x, const Tensor& dy, const Tensor& dw, bool accumulate) {
  check_image("conv_transpose2x2_backward_weight", "x", x);
  check_defined("conv_transpose2x2_backward_weight", "dw", dw);
  check_like("conv_transpose2x2_backward_weight", "dy", dy, transpose_shape(x.shape(), dw.shape()), x);
  check_filter_gradient("conv_transpose2x2_backward_weight", dw, x);
  const Tensor in = readable(x);
  const Tensor gradient = readable(dy);
  backend_for(x.device()).conv_transpose2x2_backward_weight(in.image(), gradient.image(), dw.filter(), accumulate);
}

}  // namespace tessera::ops
