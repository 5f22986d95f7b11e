// What the checked entry points (ops/*.cpp) share: argument checks that say what came and what was expected, and outputs that are
// either new or the caller's slice. Internal to tensor/ops.
#pragma once

#include <string_view>

#include "tensor/backend.h"
#include "tensor/tensor.h"

namespace tessera::ops {

inline void check_defined(std::string_view op, std::string_view what, const Tensor& t) {
  TESSERA_CHECK(t.defined(), "{}: got an undefined {}, expected a tensor", op, what);
}

inline void check_floating(std::string_view op, std::string_view what, const Tensor& t) {
  check_defined(op, what, t);
  TESSERA_CHECK(is_floating(t.dtype()), "{}: got {} {}, expected a floating type", op, what, describe(t));
}

inline void check_type_and_device(std::string_view op, std::string_view what, const Tensor& t, DType type, Device device) {
  check_defined(op, what, t);
  TESSERA_CHECK(t.dtype() == type && t.device() == device, "{}: got {} {} on {}, expected {} on {}", op, what, describe(t),
                to_string(t.device()), name_of(type), to_string(device));
}

// `t` has this shape and the type and device of `like`.
inline void check_like(std::string_view op, std::string_view what, const Tensor& t, const Shape& shape, const Tensor& like) {
  check_type_and_device(op, what, t, like.dtype(), like.device());
  TESSERA_CHECK(t.shape() == shape, "{}: got {} {}, expected shape {}", op, what, describe(t), to_string(shape));
}

// `t` is a dense vector of n values of `type`.
inline void check_vector(std::string_view op, std::string_view what, const Tensor& t, int64_t n, DType type, Device device) {
  check_type_and_device(op, what, t, type, device);
  TESSERA_CHECK(t.numel() == n && t.is_dense(), "{}: got {} {}, expected {} dense values", op, what, describe(t), n);
}

// The same, of the type and device of `like`.
inline void check_vector(std::string_view op, std::string_view what, const Tensor& t, int64_t n, const Tensor& like) {
  check_vector(op, what, t, n, like.dtype(), like.device());
}

// A tensor that the op writes and that already exists: rows must be readable as such. Marks it as changed.
inline const Tensor& written(std::string_view op, std::string_view what, const Tensor& t) {
  check_defined(op, what, t);
  TESSERA_CHECK(t.layout() != Layout::kGeneral, "{}: got {} {} with strides {}, expected dense or pitched rows", op, what,
                describe(t), to_string(t.strides()));
  t.bump_version();
  return t;
}

// The result: `into`, checked and marked as changed, or a new dense tensor.
inline Tensor output(std::string_view op, const Tensor& into, const Shape& shape, const Tensor& like) {
  if (!into.defined()) return Tensor::empty(shape, like.dtype(), like.device());
  check_like(op, "into", into, shape, like);
  return written(op, "into", into);
}

// Rows as they are, or a dense copy of a General tensor.
inline Tensor readable(const Tensor& x) { return x.layout() == Layout::kGeneral ? x.contiguous() : x; }

}  // namespace tessera::ops
