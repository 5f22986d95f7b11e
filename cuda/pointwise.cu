// Elementwise ops. All of them move each byte once and compute little: what counts is that memory is read in full lines.
#include "cuda/device/rows.cuh"
#include "cuda/device/strided.cuh"
#include "cuda/kernels.h"
#include "tensor/ops/with_functor.h"

namespace tessera::cuda {

namespace {

// with_functor(): the branch is the same for all threads and is taken once for a pack, so one kernel serves all ops.

// y = f(x).
// A thread handles N neighbours: 16 bytes where rows are aligned, so a warp reads and writes 512 adjacent bytes.
template <class T, int N>
__global__ void __launch_bounds__(256) unary_kernel(UnaryOp op, Rows<const T> x, Rows<T> y, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<T, N> v = load_pack<N>(x.row(at.row) + at.col, at.count);
  with_functor(op, [&](auto functor) {
#pragma unroll
    for (int i = 0; i < N; ++i) v.v[i] = functor.f(v.v[i]);
  });
  store_pack<N>(y.row(at.row) + at.col, v, at.count);
}

// dx = dy f'(x), or dx += dy f'(x). Threads as in unary_kernel; dx may be dy: a thread reads its pack before it writes it.
template <class T, int N>
__global__ void __launch_bounds__(256)
    unary_backward_kernel(UnaryOp op, Rows<const T> x, Rows<const T> dy, Rows<T> dx, bool accumulate, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(dx.rows, dx.cols, col_tiles);
  if (at.count <= 0) return;
  const Pack<T, N> v = load_pack<N>(x.row(at.row) + at.col, at.count);
  Pack<T, N> g = load_pack<N>(dy.row(at.row) + at.col, at.count);
  with_functor(op, [&](auto functor) {
#pragma unroll
    for (int i = 0; i < N; ++i) g.v[i] *= functor.df(v.v[i]);
  });
  T* const out = dx.row(at.row) + at.col;
  if (accumulate) {
    const Pack<T, N> before = load_pack<N>(out, at.count);
#pragma unroll
    for (int i = 0; i < N; ++i) g.v[i] += before.v[i];
  }
  store_pack<N>(out, g, at.count);
}

// y = alpha x, or y += alpha x. Threads as in unary_kernel.
template <class T, int N>
__global__ void __launch_bounds__(256) scale_kernel(Rows<const T> x, float alpha, Rows<T> y, bool add, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<T, N> v = load_pack<N>(x.row(at.row) + at.col, at.count);
  T* const out = y.row(at.row) + at.col;
  if (add) {
    const Pack<T, N> before = load_pack<N>(out, at.count);
#pragma unroll
    for (int i = 0; i < N; ++i) v.v[i] = before.v[i] + alpha * v.v[i];
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) v.v[i] *= alpha;
  }
  store_pack<N>(out, v, at.count);
}

// y = alpha x of bytes: pixels on their way into a network. Threads as in unary_kernel, along y.
template <class T, int N>
__global__ void __launch_bounds__(256) scale_u8_kernel(Rows<const uint8_t> x, float alpha, Rows<T> y, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  const Pack<uint8_t, N> v = load_pack<N>(x.row(at.row) + at.col, at.count);
  Pack<T, N> scaled;
#pragma unroll
  for (int i = 0; i < N; ++i) scaled.v[i] = float(v.v[i]) * alpha;
  store_pack<N>(y.row(at.row) + at.col, scaled, at.count);
}

// In the type itself for integers. max and min return b where the comparison is false (NaN in a).
template <class C>
__device__ C apply(BinaryOp op, C a, C b) {
  switch (op) {
    case BinaryOp::kAdd: return C(a + b);
    case BinaryOp::kSubtract: return C(a - b);
    case BinaryOp::kMultiply: return C(a * b);
    case BinaryOp::kDivide: return C(a / b);
    case BinaryOp::kMaximum: return a > b ? a : b;
    case BinaryOp::kMinimum: return a < b ? a : b;
  }
  return a;
}

// y = a op b, all three dense and of one shape. Threads as in unary_kernel.
template <class T, int N>
__global__ void __launch_bounds__(256) binary_rows_kernel(BinaryOp op, Rows<const T> a, Rows<const T> b, Rows<T> y, int col_tiles) {
  wait_for_kernel_before();
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<T, N> left = load_pack<N>(a.row(at.row) + at.col, at.count);
  const Pack<T, N> right = load_pack<N>(b.row(at.row) + at.col, at.count);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i < at.count) left.v[i] = apply(op, left.v[i], right.v[i]);
  }
  store_pack<N>(y.row(at.row) + at.col, left, at.count);
}

// y = a op b with broadcasting: operands have stride 0 where they repeat.
// One thread an element in the order of y: writes are adjacent, what repeats is in the cache.
template <class T>
__global__ void __launch_bounds__(256) binary_strided_kernel(BinaryOp op, const T* a, const T* b, T* y, StridedLoop<3> loop) {
  wait_for_kernel_before();
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= loop.count) return;
  int64_t at[3];
  loop.offsets(i, at);
  y[at[2]] = rounded<T>(apply(op, load(a[at[0]]), load(b[at[1]])));
}

void scale_rows(RowsView x, double alpha, RowsView y, bool add) {
  join_dense_rows(x, y);
  const char* const name = add ? "add_scaled" : "scale";
  for_floating(name, x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = row_grid<N>(y.rows, y.cols);
          launch(name, early(g.grid), scale_kernel<T, N>, rows_of<const T>(x), float(alpha), rows_of<T>(y), add, g.col_tiles);
        },
        x, y);
  });
}

}  // namespace

void unary(UnaryOp op, RowsView x, RowsView y) {
  join_dense_rows(x, y);
  const char* const name = name_of(op).data();
  for_floating(name, x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = row_grid<N>(y.rows, y.cols);
          launch(name, early(g.grid), unary_kernel<T, N>, op, rows_of<const T>(x), rows_of<T>(y), g.col_tiles);
        },
        x, y);
  });
}

void unary_backward(UnaryOp op, RowsView x, RowsView dy, RowsView dx, bool accumulate) {
  join_dense_rows(x, dy, dx);
  for_floating("unary_backward", x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = row_grid<N>(dx.rows, dx.cols);
          launch("unary_backward", early(g.grid), unary_backward_kernel<T, N>, op, rows_of<const T>(x), rows_of<const T>(dy),
                 rows_of<T>(dx), accumulate, g.col_tiles);
        },
        x, dy, dx);
  });
}

void binary(BinaryOp op, const StridedView& a, const StridedView& b, const StridedView& y) {
  const auto loop = strided_loop<3>(y.shape, {a.strides, b.strides, y.strides});
  const char* const name = name_of(op).data();
  for_numbers(name, y.t, [&]<class T>() {
    const bool adjacent = loop.rank == 1 && loop.stride[0][0] == 1 && loop.stride[0][1] == 1 && loop.stride[0][2] == 1;
    if (!adjacent) {
      launch(name, early(one_thread_each(loop.count)), binary_strided_kernel<T>, op, static_cast<const T*>(a.p),
             static_cast<const T*>(b.p), static_cast<T*>(y.p), loop);
      return;
    }
    auto as_row = [&](const StridedView& v) { return RowsView{v.p, v.t, 1, loop.count, loop.count}; };
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = row_grid<N>(1, loop.count);
          launch(name, early(g.grid), binary_rows_kernel<T, N>, op, rows_of<const T>(as_row(a)), rows_of<const T>(as_row(b)),
                 rows_of<T>(as_row(y)), g.col_tiles);
        },
        as_row(a), as_row(b), as_row(y));
  });
}

void add_scaled(RowsView x, double alpha, RowsView y) { scale_rows(x, alpha, y, /*add=*/true); }
void scale(RowsView x, double alpha, RowsView y) {
  if (x.t != DType::kU8) return scale_rows(x, alpha, y, /*add=*/false);
  join_dense_rows(x, y);
  for_floating("scale", y.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = row_grid<N>(y.rows, y.cols);
          launch("scale", early(g.grid), scale_u8_kernel<T, N>, rows_of<const uint8_t>(x), float(alpha), rows_of<T>(y),
                 g.col_tiles);
        },
        x, y);
  });
}

}  // namespace tessera::cuda
