// Gather and scatter of rows.
#include <limits>

#include "cuda/device/reduce.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;

// y[i] = x[index[i]]; of no row where the index is -1. T is an unsigned type of the element's size: bits move as they are.
// A thread moves N neighbours of a row of y; the index is the same for all of them and comes from the cache.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) gather_rows_kernel(Rows<const T> x, const int64_t* index, Rows<T> y, int col_tiles) {
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  const int64_t from = index[at.row];
  if (from < 0) return;
  TESSERA_DEVICE_ASSERT(from < x.rows);
  store_pack<N>(y.row(at.row) + at.col, load_pack<N>(x.row(int(from)) + at.col, at.count), at.count);
}

// The scatter gives every row of y one owner: the first row of x that goes there adds all of them, in their order. So nothing is
// added atomically and the sum has the same bits on every run. Owners are found with integer minima and maxima, whose result does
// not depend on the order.

// Where a row of y has its parts: the first and the last i with index[i] = row.
struct Span {
  int first, last;
};

// Empties the spans that are about to be used, and no others: n writes, however long y is. Thread i: that of index[i]; threads with
// the same index write the same, which without atomics would be a race all the same.
__global__ void __launch_bounds__(kThreads) clear_spans_kernel(const int64_t* index, int n, Span* spans) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n || index[i] < 0) return;
  atomicExch(&spans[index[i]].first, std::numeric_limits<int>::max());
  atomicExch(&spans[index[i]].last, -1);
}

// spans[index[i]] = least and greatest such i. Thread i: entry i.
__global__ void __launch_bounds__(kThreads) find_spans_kernel(const int64_t* index, int n, Span* spans) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n || index[i] < 0) return;
  atomicMin(&spans[index[i]].first, i);
  atomicMax(&spans[index[i]].last, i);
}

// y[index[i]] += x[i], in order of i; the sum is rounded once.
// One warp for each row of x; those that do not own their target leave. An owner walks over its span, 32 indices at a time, and
// adds the rows that match: one look where every target occurs once, which is the usual case. Lane l has packs l, l + 32, ... of
// the row.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    scatter_add_rows_kernel(Rows<const T> x, const int64_t* index, const Span* spans, Rows<T> y) {
  const int lane = int(threadIdx.x) % kWarp;
  const int i = int(blockIdx.x) * (kThreads / kWarp) + int(threadIdx.x) / kWarp;
  if (i >= x.rows) return;  // whole warps leave; there is no barrier of the block
  const int64_t target = index[i];
  if (target < 0) return;
  TESSERA_DEVICE_ASSERT(target < y.rows);
  const Span span = spans[target];
  if (span.first != i) return;
  T* const out = y.row(int(target));
  for (int tile = 0; tile < x.cols; tile += kWarp * N) {
    const int col = tile + lane * N;
    const int count = x.cols - col;  // <= 0: the lane only helps to look
    Pack<T, N> sum{};
    if (count > 0) sum = load_pack<N>(out + col, count);
    for (int first = i; first <= span.last; first += kWarp) {
      const int candidate = first + lane;
      unsigned matches = __ballot_sync(kAllLanes, candidate <= span.last && index[candidate] == target);
      while (matches != 0) {
        const int j = first + __ffs(int(matches)) - 1;
        matches &= matches - 1;
        if (count <= 0) continue;
        const Pack<T, N> v = load_pack<N>(x.row(j) + col, count);
#pragma unroll
        for (int k = 0; k < N; ++k) sum.v[k] += v.v[k];
      }
    }
    if (count > 0) store_pack<N>(out + col, sum, count);
  }
}

}  // namespace

void gather_rows(RowsView x, const int64_t* index, RowsView y) {
  for_size(x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          const RowGrid g = row_grid<N>(y.rows, y.cols);
          launch("gather_rows", g.grid, gather_rows_kernel<T, N>, rows_of<const T>(x), index, rows_of<T>(y), g.col_tiles);
        },
        x, y);
  });
}

void scatter_add_rows(RowsView x, const int64_t* index, RowsView y) {
  const int n = size32(x.rows);
  if (n == 0) return;
  const Scratch<Span> spans(y.rows);
  launch("scatter_add_rows, clear", one_thread_each(n), clear_spans_kernel, index, n, spans.get());
  launch("scatter_add_rows, find", one_thread_each(n), find_spans_kernel, index, n, spans.get());
  for_floating("scatter_add_rows", x.t, [&]<class T>() {
    with_pack<T>(
        [&]<int N>() {
          launch("scatter_add_rows", {dim3(blocks_for(n, kThreads / kWarp)), dim3(kThreads)}, scatter_add_rows_kernel<T, N>,
                 rows_of<const T>(x), index, static_cast<const Span*>(spans.get()), rows_of<T>(y));
        },
        x, y);
  });
}

}  // namespace tessera::cuda
