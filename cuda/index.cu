// Gather and scatter of rows.
#include <algorithm>
#include <limits>

#include "cuda/device/reduce.cuh"
#include "cuda/device/rows.cuh"
#include "cuda/kernels.h"

namespace tessera::cuda {

namespace {

constexpr int kThreads = 256;

template <class T>
struct Tables {
  int count;
  Rows<T> rows[kMostTables];
};
template <class T>
Tables<T> tables_of(std::span<const RowsView> views) {
  Tables<T> tables{int(views.size()), {}};
  for (size_t t = 0; t < views.size(); ++t) tables.rows[t] = rows_of<T>(views[t]);
  return tables;
}

// y[i] = the row of the one table that has one for i, or 0. T is an unsigned type of the element's size: bits move as they are.
// A thread moves N neighbours of a row of y; the indices are the same for all of them and come from the cache.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    gather_rows_kernel(Tables<const T> tables, const int64_t* index, Rows<T> y, int col_tiles) {
  const RowPlace at = row_place<N>(y.rows, y.cols, col_tiles);
  if (at.count <= 0) return;
  Pack<T, N> v{};
#pragma unroll
  for (int t = 0; t < int(kMostTables); ++t) {
    const int64_t from = t < tables.count ? index[int64_t(t) * y.rows + at.row] : -1;
    if (from < 0) continue;
    TESSERA_DEVICE_ASSERT(from < tables.rows[t].rows);
    v = load_pack<N>(tables.rows[t].row(int(from)) + at.col, at.count);
  }
  store_pack<N>(y.row(at.row) + at.col, v, at.count);
}

// The scatter gives every row of y one owner: the first row of x that goes there adds all of them, in their order. So nothing is
// added atomically and the sum has the same bits on every run. Owners are found with integer minima and maxima, whose result does
// not depend on the order.

// Where a row of y has its parts: the first and the last i with index[i] = row.
struct Span {
  int first, last;
};

// The spans of all tables, one table after the other.
struct SpanRows {
  int tables;
  int first[kMostTables];
};

// Empties the spans that are about to be used, and no others: n writes a table, however long they are. Thread i: those of entry i;
// threads with the same index write the same, which without atomics would be a race all the same.
__global__ void __launch_bounds__(kThreads) clear_spans_kernel(const int64_t* index, int n, Span* spans, SpanRows of) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  for (int t = 0; t < of.tables; ++t) {
    const int64_t row = index[int64_t(t) * n + i];
    if (row < 0) continue;
    atomicExch(&spans[of.first[t] + row].first, std::numeric_limits<int>::max());
    atomicExch(&spans[of.first[t] + row].last, -1);
  }
}

// A row's span = least and greatest i with its index. Thread i: entry i of every table.
__global__ void __launch_bounds__(kThreads) find_spans_kernel(const int64_t* index, int n, Span* spans, SpanRows of) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  for (int t = 0; t < of.tables; ++t) {
    const int64_t row = index[int64_t(t) * n + i];
    if (row < 0) continue;
    atomicMin(&spans[of.first[t] + row].first, i);
    atomicMax(&spans[of.first[t] + row].last, i);
  }
}

// Adds the rows of x whose index in this table is that of row i to the row it names, in their order; the sum is rounded once. By the
// warp of i, if i is the first of them: it walks over the span, 32 indices at a time, and adds the rows that match: one look where
// every target occurs once, which is the usual case. Lane l has packs l, l + 32, ... of the row.
template <class T, int N>
__device__ void add_rows_of_target(const Rows<const T>& x, int i, const int64_t* index, const Span* spans, const Rows<T>& y) {
  const int64_t target = index[i];
  if (target < 0) return;
  TESSERA_DEVICE_ASSERT(target < y.rows);
  const Span span = spans[target];
  if (span.first != i) return;
  const int lane = int(threadIdx.x) % kWarp;
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

// One warp for each row of x.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    scatter_add_rows_kernel(Rows<const T> x, const int64_t* index, const Span* spans, SpanRows of, Tables<T> tables) {
  const int i = int(blockIdx.x) * (kThreads / kWarp) + int(threadIdx.x) / kWarp;
  if (i >= x.rows) return;  // whole warps leave; there is no barrier of the block
#pragma unroll  // tables in a loop would be copied to the stack
  for (int t = 0; t < int(kMostTables); ++t) {
    if (t < of.tables) add_rows_of_target<T, N>(x, i, index + int64_t(t) * x.rows, spans + of.first[t], tables.rows[t]);
  }
}

}  // namespace

void gather_rows(std::span<const RowsView> tables, const int64_t* index, RowsView y) {
  const auto all_aligned = [&] { return std::all_of(tables.begin(), tables.end(), [](const RowsView& v) { return rows_are_aligned(v); }); };
  for_size(y.t, [&]<class T>() {
    const auto run = [&]<int N>() {
      const RowGrid g = row_grid<N>(y.rows, y.cols);
      launch("gather_rows", g.grid, gather_rows_kernel<T, N>, tables_of<const T>(tables), index, rows_of<T>(y), g.col_tiles);
    };
    all_aligned() && rows_are_aligned(y) ? run.template operator()<kWide<T>>() : run.template operator()<1>();
  });
}

void scatter_add_rows(RowsView x, const int64_t* index, std::span<const RowsView> tables) {
  const int n = size32(x.rows);
  if (n == 0) return;
  SpanRows of{int(tables.size()), {}};
  int64_t rows = 0;
  bool aligned = rows_are_aligned(x);
  for (size_t t = 0; t < tables.size(); ++t) {
    of.first[t] = size32(rows);
    rows += tables[t].rows;
    aligned = aligned && rows_are_aligned(tables[t]);
  }
  size32(rows);
  const Scratch<Span> spans(rows);
  launch("scatter_add_rows, clear", one_thread_each(n), clear_spans_kernel, index, n, spans.get(), of);
  launch("scatter_add_rows, find", one_thread_each(n), find_spans_kernel, index, n, spans.get(), of);
  for_floating("scatter_add_rows", x.t, [&]<class T>() {
    const auto run = [&]<int N>() {
      launch("scatter_add_rows", {dim3(blocks_for(n, kThreads / kWarp)), dim3(kThreads)}, scatter_add_rows_kernel<T, N>,
             rows_of<const T>(x), index, static_cast<const Span*>(spans.get()), of, tables_of<T>(tables));
    };
    aligned ? run.template operator()<kWide<T>>() : run.template operator()<1>();
  });
}

}  // namespace tessera::cuda
