// Kernels over the columns (channels) of a matrix. A thread keeps N neighbouring channels and walks down the rows, so what belongs
// to a channel is read once and stays in registers, and a warp reads whole lines: the neighbouring channels of one row or of a few
// rows.
//
// Results over all rows of a channel take two launches: blocks reduce chunks of rows, then merge_chunks() joins the chunks. Both
// follow an order that only the shapes decide.
#pragma once

#include <algorithm>
#include <string>

#include "cuda/context.h"
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

// Chunks of at least `rows_of_thread` rows a thread, and of more where these were more than `most_blocks` blocks.
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

// A reduction: two blocks for each of the 132 processors of a large device, so that there are few chunks to merge. Narrow tiles,
// for the same reason: more of them share the blocks.
inline constexpr int kReductionThreads = 384;
template <int N>
ColumnPlan plan_reduction(const RowsView& x, int64_t rows_of_thread) {
  constexpr int64_t kBlocks = 264;
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

// Joins what `height` rows of `width` threads have for N channels each. Entry (i height + y) width + x of `parts` is channel i of
// thread x in row y; afterwards entry i width + x is the channel's result. combined(n, part) joins part(0) .. part(n - 1).
//
// Each round leaves at most an eighth of the rows, fewer where the block has not the threads; entries of a round are read by
// neighbours.
template <int N, class Part, class Combined>
__device__ void fold_in_block(Part* parts, int width, int height, const Combined& combined) {
  const int t = int(threadIdx.x);
  while (height > 1) {
    const int left = max(1, min((height + 7) / 8, int(blockDim.x) / (N * width)));
    const int line = left * width;
    const int i = t / line;
    const int first = i * height * width + t - i * line;
    const int row = (t - i * line) / width;
    const bool mine = t < N * line;
    Part joined{};
    __syncthreads();
    if (mine) joined = combined((height - row + left - 1) / left, [&](int k) { return parts[first + k * line]; });
    __syncthreads();
    if (mine) parts[t] = joined;
    height = left;
  }
  __syncthreads();
}

// The parts of a block's channels, joined, as row `chunk` of `partial`, a matrix of chunks x cols. All threads come here; those
// without rows bring the neutral part. `parts` has room for N of every thread.
template <int N, class Part, class Combined>
__device__ void store_chunk(Part* partial, Part* parts, const Part (&mine)[N], const ColumnPlan& plan, const ColumnPlace& at,
                            int cols, const Combined& combined) {
  const int t = int(threadIdx.x);
  const int places = plan.width * plan.height;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (t < places) parts[i * places + t] = mine[i];
  }
  fold_in_block<N>(parts, plan.width, plan.height, combined);
  if (t >= plan.width || at.col >= cols) return;
#pragma unroll
  for (int i = 0; i < N; ++i) partial[int64_t(at.chunk) * cols + at.col + i] = parts[i * plan.width + t];
}

// Hands finish(c, part) the joined chunks of channel c. Block: 4 channels, whose parts of one chunk are neighbours. Thread: one of
// them, every kThreads / 4th chunk, 5 of them read together: with 256 threads all there are from plan_reduction().
inline constexpr int kMergeThreads = 256, kMergeChannels = 4, kMergeTogether = 5;
inline constexpr int kMergedAtOnce = kMergeThreads / kMergeChannels * kMergeTogether;
template <int kThreads, class Part, class Combined, class Finish>
__global__ void __launch_bounds__(kThreads)
    merge_chunks_kernel(const Part* partial, int chunks, int cols, Combined combined, Finish finish) {
  wait_for_kernel_before();
  constexpr int kLanes = kThreads / kMergeChannels;
  TESSERA_SHARED(parts, Part[kThreads]);
  const int t = int(threadIdx.x);
  const int c = int(blockIdx.x) * kMergeChannels + t % kMergeChannels;
  Part mine{};
  if (c < cols) {
    for (int first = t / kMergeChannels; first < chunks; first += kMergeTogether * kLanes) {
      Part read[kMergeTogether];
#pragma unroll
      for (int k = 0; k < kMergeTogether; ++k) {
        const int chunk = first + k * kLanes;
        read[k] = chunk < chunks ? partial[int64_t(chunk) * cols + c] : Part{};
      }
      const Part group = combined(kMergeTogether, [&](int k) { return read[k]; });
      mine = combined(2, [&](int k) { return k == 0 ? mine : group; });
    }
  }
  parts[t] = mine;
  fold_in_block<1>(parts, kMergeChannels, kLanes, combined);
  if (t < kMergeChannels && c < cols) finish(c, parts[t]);
}

template <int kThreads = kMergeThreads, class Part, class Combined, class Finish>
void merge_chunks(const char* name, const Scratch<Part>& partial, int chunks, int64_t cols, const Combined& combined,
                  const Finish& finish) {
  const Grid grid = early({dim3(blocks_for(cols, kMergeChannels)), dim3(kThreads)});
  launch(name, grid, merge_chunks_kernel<kThreads, Part, Combined, Finish>, static_cast<const Part*>(partial.get()), chunks,
         size32(cols), combined, finish);
}

}  // namespace tessera::cuda
