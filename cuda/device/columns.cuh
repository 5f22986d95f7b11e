// Kernels over the columns (channels) of a matrix. A thread keeps N neighbouring channels and walks down the rows, so what belongs
// to a channel is read once and stays in registers, and a warp reads whole lines: the neighbouring channels of one row or of a few
// rows.
//
// For results over all rows of a channel blocks reduce chunks of rows, which another kernel joins (cuda/device/chunks.cuh).
#pragma once

#include <algorithm>

#include "cuda/device/chunks.cuh"
#include "cuda/device/element.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/views.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda {

// How blocks share a matrix: `width` threads side by side, N channels each, and `height` rows at a time; threads beyond width *
// height rest. Block b has tile b % col_tiles of channels and chunk b / col_tiles of rows.
struct ColumnPlan {
  int threads, width, height;
  int col_tiles;
  int chunks, rows_per_chunk;
  Grid grid() const { return early({dim3(unsigned(col_tiles) * unsigned(chunks)), dim3(unsigned(threads))}); }
};

// The widest tile of at most `most` packs that leaves no thread without a channel; where no wide one does, the last tile has a gap.
inline int tile_width(int64_t packs, int most) {
  for (int width = most; width > most / 2; --width) {
    if (packs % width == 0) return width;
  }
  return int(std::min<int64_t>(packs, most));
}

// Chunks of `rows_of_thread` rows for each thread, or of more rows where that would make more than `most_blocks` blocks.
template <int N>
ColumnPlan plan_columns(const RowsView& x, int threads, int most_width, int64_t most_blocks, int64_t rows_of_thread) {
  ColumnPlan plan{};
  const int64_t packs = std::max<int64_t>(1, (x.cols + N - 1) / N);
  plan.threads = threads;
  plan.width = tile_width(packs, most_width);
  plan.height = threads / plan.width;
  plan.col_tiles = size32((packs + plan.width - 1) / plan.width);
  const int64_t most_chunks = std::max<int64_t>(1, most_blocks / plan.col_tiles);
  const int64_t rows = std::max((x.rows + most_chunks - 1) / most_chunks, rows_of_thread * plan.height);
  plan.rows_per_chunk = size32(std::min(rows, x.rows));
  plan.chunks = size32((x.rows + rows - 1) / rows);
  blocks_for(int64_t(plan.col_tiles) * plan.chunks, 1);  // throws if these are too many for a grid
  return plan;
}

// Multiprocessors that plans are made for: those of an H100 or H200. Not those of the device in use, since the number of chunks
// decides the order of a sum and with it its bits.
inline constexpr int64_t kPlannedMultiprocessors = 132;

// A reduction: two blocks for each multiprocessor, so that there are few chunks to join. Narrow tiles for the same reason: more of
// them share the blocks.
inline constexpr int kReductionThreads = 384;
template <int N>
ColumnPlan plan_reduction(const RowsView& x, int64_t rows_of_thread) {
  constexpr int64_t kBlocks = 2 * kPlannedMultiprocessors;
  return plan_columns<N>(x, kReductionThreads, N > 1 ? 10 : kWarp, kBlocks, rows_of_thread);
}

// Where a thread works: N channels from `col` on (or none), rows `row`, row + step, ... below end.
struct ColumnPlace {
  int col;
  bool any;
  int row, step, end;
  int chunk;
};

template <int N>
__device__ ColumnPlace column_place(const ColumnPlan& plan, int rows, int cols) {
  const int t = int(threadIdx.x);
  const int chunk = int(blockIdx.x) / plan.col_tiles;
  const int tile = int(blockIdx.x) - chunk * plan.col_tiles;
  const int y = t / plan.width;
  const int begin = chunk * plan.rows_per_chunk;
  ColumnPlace at;
  at.col = (tile * plan.width + t - y * plan.width) * N;
  at.row = begin + y;
  at.step = plan.height;
  at.end = begin + min(plan.rows_per_chunk, rows - begin);
  at.chunk = chunk;
  at.any = at.col < cols && y < plan.height && at.row < at.end;
  return at;
}

// Leaves what the threads of the block have of its channels. All threads come here; those without rows bring the neutral part.
// `parts` has room for N of every thread.
template <int N, class Part, class Combined>
__device__ void leave_chunk(const Chunks<Part>& chunks, Part* parts, const Part (&mine)[N], const ColumnPlan& plan,
                            const ColumnPlace& at, const Combined& combined) {
  const int t = int(threadIdx.x);
  const int places = plan.width * plan.height;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (t < places) parts[i * places + t] = mine[i];
  }
  fold_in_block<N>(parts, plan.width, plan.height, combined);
  if (t < plan.width && at.col < chunks.cols) {
    Part* const row = chunks.row(at.chunk) + at.col;
#pragma unroll
    for (int i = 0; i < N; ++i) row[i] = parts[i * plan.width + t];
  }
}

}  // namespace tessera::cuda
