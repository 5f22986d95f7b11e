// Element access of the reference loops: every value is read as double and rounded once when it is stored.
#pragma once

#include <type_traits>

#include "tensor/base/check.h"
#include "tensor/dtype.h"
#include "tensor/views.h"

namespace tessera::ref {

template <class T>
inline constexpr bool kIsShortFloat = std::is_same_v<T, BFloat16> || std::is_same_v<T, Half>;

// The type of sums and per-channel vectors beside tensors of T, as wide_of() says.
template <class T>
using Wide = std::conditional_t<kIsShortFloat<T>, float, T>;

template <class T>
double load(T value) {
  if constexpr (kIsShortFloat<T>) {
    return double(float(value));
  } else {
    return double(value);
  }
}

template <class T>
T rounded(double value) {
  if constexpr (kIsShortFloat<T>) {
    return T(float(value));
  } else {
    return T(value);
  }
}

// y = value, or y += value.
template <class T>
void put(T& y, double value, bool accumulate) {
  y = rounded<T>(accumulate ? load(y) + value : value);
}

// Calls f.operator()<T>() with the C++ type of `t`: f32 and f64 only.
template <class F>
decltype(auto) for_wide(DType t, F&& f) {
  switch (t) {
    case DType::kF64: return f.template operator()<double>();
    case DType::kF32: return f.template operator()<float>();
    default: break;
  }
  throw Error(ErrorCode::kBug, fmt::format("reference kernel: got {}, expected f32 or f64", name_of(t)));
}

// The four float types.
template <class F>
decltype(auto) for_floating(DType t, F&& f) {
  switch (t) {
    case DType::kF64: return f.template operator()<double>();
    case DType::kF32: return f.template operator()<float>();
    case DType::kBF16: return f.template operator()<BFloat16>();
    case DType::kF16: return f.template operator()<Half>();
    default: break;
  }
  throw Error(ErrorCode::kBug, fmt::format("reference kernel: got {}, expected a floating type", name_of(t)));
}

// Every type.
template <class F>
decltype(auto) for_any(DType t, F&& f) {
  switch (t) {
    case DType::kI64: return f.template operator()<int64_t>();
    case DType::kI32: return f.template operator()<int32_t>();
    case DType::kU8: return f.template operator()<uint8_t>();
    case DType::kBool: return f.template operator()<bool>();
    default: return for_floating(t, f);
  }
}

// Offset in elements of the flat row-major position `i` of a strided view.
inline int64_t offset_of(int64_t i, const Shape& shape, const Strides& strides) {
  int64_t offset = 0;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    offset += i % shape[axis] * strides[axis];
    i /= shape[axis];
  }
  return offset;
}

// The row of a RowsView, or the pixel of an ImageView.
template <class T>
T* row(const RowsView& v, int64_t r) {
  return data<T>(v) + r * v.pitch;
}
template <class T>
T* pixel(const ImageView& v, int64_t n, int64_t y, int64_t x) {
  return data<T>(v) + ((n * v.h + y) * v.w + x) * v.pitch;
}

}  // namespace tessera::ref
