// Fill, strided copy and cast.
#include <bit>
#include <cstring>

#include "cuda/device/rows.cuh"
#include "cuda/device/strided.cuh"
#include "cuda/kernels.h"

namespace tessera::cuda {

namespace {

// y = value over rows of adjacent elements. A thread writes 16 bytes, a warp 512 in one go.
template <class T, int N>
__global__ void __launch_bounds__(256) fill_rows_kernel(Rows<T> y, T value, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<T, N> all;
#pragma unroll
  for (int i = 0; i < N; ++i) all.v[i] = value;
  store_pack<N>(y.row(at.row) + at.col, all, at.count);
}

// y[i] = value for every position of a strided tensor.
// One thread an element, in the order of y's memory: a warp writes neighbours.
template <class T>
__global__ void __launch_bounds__(256) fill_kernel(T* y, T value, StridedLoop<1> loop) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= loop.count) return;
  int64_t at[1];
  loop.offsets(i, at);
  y[at[0]] = value;
}

// y = x, both rows of adjacent elements.
// A thread moves 16 bytes where both sides are aligned, so a warp moves 512 bytes in one go in each direction.
template <class T, int N>
__global__ void __launch_bounds__(256) copy_rows_kernel(Rows<const T> x, Rows<T> y, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  store_pack<N>(y.row(at.row) + at.col, load_pack<N>(x.row(at.row) + at.col, at.count), at.count);
}

// y = x of any strides, the same type.
// One thread an element in the order of y: writes are adjacent, reads are as the permutation has them and lean on the cache.
template <class T>
__global__ void __launch_bounds__(256) copy_strided_kernel(const T* x, T* y, StridedLoop<2> loop) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= loop.count) return;
  int64_t at[2];
  loop.offsets(i, at);
  y[at[1]] = x[at[0]];
}

// As a C++ cast does; the short floats go through float.
template <class To, class From>
__device__ To converted(From value) {
  if constexpr (std::is_same_v<Compute<From>, From>) {
    return rounded<To>(Compute<To>(value));
  } else {
    return rounded<To>(Compute<To>(load(value)));
  }
}

template <class To>
__device__ To read_as(const void* x, DType from, int64_t at) {
  switch (from) {
    case DType::kF64: return converted<To>(static_cast<const double*>(x)[at]);
    case DType::kF32: return converted<To>(static_cast<const float*>(x)[at]);
    case DType::kBF16: return converted<To>(static_cast<const BFloat16*>(x)[at]);
    case DType::kF16: return converted<To>(static_cast<const Half*>(x)[at]);
    case DType::kI64: return converted<To>(static_cast<const int64_t*>(x)[at]);
    case DType::kI32: return converted<To>(static_cast<const int32_t*>(x)[at]);
    case DType::kU8: return converted<To>(static_cast<const uint8_t*>(x)[at]);
    case DType::kBool: return converted<To>(static_cast<const bool*>(x)[at]);
  }
  return To{};
}

// y = To(x). As copy_strided_kernel; the type of x is a branch that all threads take alike, which keeps 64 pairs of types in 8
// kernels.
template <class To>
__global__ void __launch_bounds__(256) cast_kernel(const void* x, DType from, To* y, StridedLoop<2> loop) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= loop.count) return;
  int64_t at[2];
  loop.offsets(i, at);
  y[at[1]] = read_as<To>(x, from, at[0]);
}

// Eight neighbours, 16 bytes an access.
template <class T>
__device__ Pack<T, 8> load_eight(const T* p) {
  if constexpr (8 * sizeof(T) <= 16) {
    return unpacked(load_packed<8>(p));
  } else {
    const Packed<T, 4> low = load_packed<4>(p), high = load_packed<4>(p + 4);
    Pack<T, 8> r;
#pragma unroll
    for (int i = 0; i < 8; ++i) r.v[i] = load(i < 4 ? low.v[i] : high.v[i - 4]);
    return r;
  }
}
template <class T>
__device__ void store_eight(T* p, const Pack<T, 8>& values) {
  if constexpr (8 * sizeof(T) <= 16) {
    store_pack<8>(p, values);
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Pack<T, 4> four;
#pragma unroll
      for (int i = 0; i < 4; ++i) four.v[i] = values.v[4 * half + i];
      store_pack<4>(p + 4 * half, four);
    }
  }
}

// y = To(x) between the types that a training casts millions of: activations and filters from and to 16 bits, pixels to floats.
// A thread casts eight neighbours, a warp reads and writes full lines.
template <class To, class From>
__global__ void __launch_bounds__(256) cast_rows_kernel(Rows<const From> x, Rows<To> y, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<8>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  const Pack<From, 8> from = load_eight(x.row(at.row) + at.col);
  Pack<To, 8> to;
#pragma unroll
  for (int i = 0; i < 8; ++i) to.v[i] = float(from.v[i]);
  store_eight(y.row(at.row) + at.col, to);
}

// Calls f.operator()<To, From>() for those pairs of types; false: it is none of them.
template <class F>
bool for_common_cast(DType to, DType from, F&& f) {
  auto is = [&](DType a, DType b) { return from == a && to == b; };
  if (is(DType::kF32, DType::kBF16)) return f.template operator()<BFloat16, float>(), true;
  if (is(DType::kF32, DType::kF16)) return f.template operator()<Half, float>(), true;
  if (is(DType::kBF16, DType::kF32)) return f.template operator()<float, BFloat16>(), true;
  if (is(DType::kF16, DType::kF32)) return f.template operator()<float, Half>(), true;
  if (is(DType::kU8, DType::kF32)) return f.template operator()<float, uint8_t>(), true;
  if (is(DType::kU8, DType::kBF16)) return f.template operator()<BFloat16, uint8_t>(), true;
  if (is(DType::kU8, DType::kF16)) return f.template operator()<Half, uint8_t>(), true;
  return false;
}

// The bits of `value` as an element of type t.
uint64_t element_bits(DType t, double value) {
  uint64_t bits = 0;
  auto keep = [&](auto element) { std::memcpy(&bits, &element, sizeof(element)); };
  switch (t) {
    case DType::kF64: keep(value); break;
    case DType::kF32: keep(float(value)); break;
    case DType::kBF16: keep(BFloat16(float(value))); break;
    case DType::kF16: keep(Half(float(value))); break;
    case DType::kI64: keep(int64_t(value)); break;
    case DType::kI32: keep(int32_t(value)); break;
    case DType::kU8: keep(uint8_t(value)); break;
    case DType::kBool: keep(bool(value)); break;
  }
  return bits;
}

// Operand k as rows of adjacent elements, when that is what joining axes has left: one axis, or two with the inner one adjacent.
template <int K>
bool as_rows(const StridedLoop<K>& loop, int k, DType t, void* p, RowsView& rows) {
  if (loop.count == 0 || loop.rank == 0 || loop.rank > 2) return false;
  const int inner = loop.rank - 1;
  const int64_t cols = loop.size[inner];
  rows = {p, t, loop.rank == 2 ? loop.size[0] : 1, cols, loop.rank == 2 ? loop.stride[0][k] : cols};
  return loop.stride[inner][k] == 1 && rows.pitch >= 0;
}

}  // namespace

void fill(const StridedView& y, double value) {
  const auto loop = strided_loop<1>(y.shape, {y.strides});
  for_size(y.t, [&]<class T>() {
    const T element = T(element_bits(y.t, value));
    RowsView rows;
    if (as_rows(loop, 0, y.t, y.p, rows)) {
      with_pack<T>(
          [&]<int N>() {
            const RowGrid g = row_grid<N>(rows.rows, rows.cols);
            launch("fill", early(g.grid), fill_rows_kernel<T, N>, rows_of<T>(rows), element, g.col_tiles);
          },
          rows);
    } else {
      launch("fill", early(one_thread_each(loop.count)), fill_kernel<T>, static_cast<T*>(y.p), element, loop);
    }
  });
}

void copy(const StridedView& x, const StridedView& y) {
  const auto loop = strided_loop<2>(y.shape, {x.strides, y.strides});
  if (x.t != y.t) {
    RowsView from, to;
    if (as_rows(loop, 0, x.t, x.p, from) && as_rows(loop, 1, y.t, y.p, to) && to.cols % 8 == 0 && rows_are_aligned(from) &&
        rows_are_aligned(to) && for_common_cast(y.t, x.t, [&]<class To, class From>() {
          const RowGrid g = row_grid<8>(to.rows, to.cols);
          launch("cast", early(g.grid), cast_rows_kernel<To, From>, rows_of<const From>(from), rows_of<To>(to), g.col_tiles);
        })) {
      return;
    }
    for_any(y.t, [&]<class To>() {
      launch("cast", early(one_thread_each(loop.count)), cast_kernel<To>, x.p, x.t, static_cast<To*>(y.p), loop);
    });
    return;
  }
  for_size(y.t, [&]<class T>() {
    RowsView from, to;
    if (as_rows(loop, 0, x.t, x.p, from) && as_rows(loop, 1, y.t, y.p, to)) {
      with_pack<T>(
          [&]<int N>() {
            const RowGrid g = row_grid<N>(to.rows, to.cols);
            launch("copy", early(g.grid), copy_rows_kernel<T, N>, rows_of<const T>(from), rows_of<T>(to), g.col_tiles);
          },
          from, to);
    } else {
      launch("copy", early(one_thread_each(loop.count)), copy_strided_kernel<T>, static_cast<const T*>(x.p), static_cast<T*>(y.p),
             loop);
    }
  });
}

}  // namespace tessera::cuda
