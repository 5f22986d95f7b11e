// Typed views of kernels: those of tensor/views.h with the element type in the type and sizes in 32 bits. Offsets are formed in 64.
#pragma once

#include <cstdint>
#include <limits>

#include "cuda/device/platform.cuh"
#include "tensor/base/check.h"
#include "tensor/views.h"

namespace tessera::cuda {

// rows x cols, `pitch` elements from row to row.
template <class T>
struct Rows {
  T* p;
  int rows, cols, pitch;
  __device__ T* row(int r) const { return p + int64_t(r) * pitch; }
};

// (N, H, W, C), `pitch` elements from pixel to pixel.
template <class T>
struct Images {
  T* p;
  int n, h, w, c, pitch;
  __device__ T* pixel(int image, int y, int x) const { return p + (int64_t(image * h + y) * w + x) * pitch; }
  __device__ T* pixel(int64_t index) const { return p + index * pitch; }
};

// Convolution filters (O, kH, kW, I), dense.
template <class T>
struct Filters {
  T* p;
  int o, kh, kw, i;
  __device__ T* tap(int out, int ky, int kx) const { return p + int64_t((out * kh + ky) * kw + kx) * i; }  // its I values
};

// A size that kernels hold in 32 bits, with room for the threads that reach past the end.
inline int size32(int64_t size) {
  constexpr int64_t kLargest = std::numeric_limits<int>::max() - 8192;
  TESSERA_CHECK(size >= 0 && size <= kLargest, "cuda: a size of {}, expected at most {}", size, kLargest);
  return int(size);
}

template <class T>
Rows<T> rows_of(const RowsView& v) {
  return {static_cast<T*>(v.p), size32(v.rows), size32(v.cols), size32(v.pitch)};
}
inline bool is_dense(const RowsView& v) { return v.pitch == v.cols || v.rows == 1; }

// All views of an elementwise op as one long row each, where every one of them is dense: no row ends to lose threads at.
template <class... V>
void join_dense_rows(V&... views) {
  if (!(is_dense(views) && ...)) return;
  ((views = RowsView{views.p, views.t, 1, views.rows * views.cols, views.rows * views.cols}), ...);
}

template <class T>
Images<T> images_of(const ImageView& v) {
  return {static_cast<T*>(v.p), size32(v.n), size32(v.h), size32(v.w), size32(v.c), size32(v.pitch)};
}

template <class T>
Filters<T> filters_of(const FilterView& v) {
  return {static_cast<T*>(v.p), size32(v.o), size32(v.kh), size32(v.kw), size32(v.i)};
}

// Whether every row starts at a multiple of 16 bytes, so that elements can be moved in wide accesses.
inline bool rows_are_aligned(const RowsView& v) {
  const size_t size = size_of(v.t);
  return reinterpret_cast<uintptr_t>(v.p) % 16 == 0 && (v.rows <= 1 || size_t(v.pitch) * size % 16 == 0);
}

// Calls f.operator()<T>() with the element type of floating tensors. f64 exists on the reference backend only.
template <class F>
decltype(auto) for_floating(const char* op, DType t, F&& f) {
  switch (t) {
    case DType::kF32: return f.template operator()<float>();
    case DType::kBF16: return f.template operator()<BFloat16>();
    case DType::kF16: return f.template operator()<Half>();
    default: break;
  }
  throw Error(ErrorCode::kBug, fmt::format("{}: got {}, expected f32, bf16 or f16 on a CUDA device", op, name_of(t)));
}

// The same with the integers.
template <class F>
decltype(auto) for_numbers(const char* op, DType t, F&& f) {
  switch (t) {
    case DType::kI64: return f.template operator()<int64_t>();
    case DType::kI32: return f.template operator()<int32_t>();
    case DType::kU8: return f.template operator()<uint8_t>();
    default: return for_floating(op, t, f);
  }
}

// Every type.
template <class F>
void for_any(DType t, F&& f) {
  switch (t) {
    case DType::kF64: return f.template operator()<double>();
    case DType::kF32: return f.template operator()<float>();
    case DType::kBF16: return f.template operator()<BFloat16>();
    case DType::kF16: return f.template operator()<Half>();
    case DType::kI64: return f.template operator()<int64_t>();
    case DType::kI32: return f.template operator()<int32_t>();
    case DType::kU8: return f.template operator()<uint8_t>();
    case DType::kBool: return f.template operator()<bool>();
  }
}

// For kernels that only move elements: types of one size share one.
template <class F>
void for_size(DType t, F&& f) {
  switch (size_of(t)) {
    case 1: return f.template operator()<uint8_t>();
    case 2: return f.template operator()<uint16_t>();
    case 4: return f.template operator()<uint32_t>();
    default: return f.template operator()<uint64_t>();
  }
}

// Where an op's contract has f32 only.
inline void expect_f32(const char* op, DType t) {
  TESSERA_CHECK(t == DType::kF32, "{}: got {}, expected f32 on a CUDA device", op, name_of(t));
}

}  // namespace tessera::cuda
