// Results over all rows of a column whose parts come from several blocks: each leaves what its chunk of rows gives, and the last
// block of a launch to finish joins the chunks, in an order that only the shapes decide. No second launch is needed for it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cuda/context.h"
#include "cuda/device/platform.cuh"
#include "tensor/base/check.h"

namespace tessera::cuda {

// Parts of each column over chunks of rows. Many chunks are joined in two steps: those of a group by the last of its blocks, the
// groups by the last of all. A launch has `tiles` tiles of columns, each with blocks of its own.
template <class Part>
struct Chunks {
  Part* parts;  // (count + groups) x cols; null: nobody wants them
  int count, cols;
  int groups, per_group;
};

inline constexpr int kTickets = 4096;  // of a launch: for each tile one for each group and one for all

// Room for them; it may go out of scope as soon as the kernel is launched.
template <class Part>
class ChunkRoom {
 public:
  ChunkRoom(int64_t count, int64_t cols, int64_t tiles)
      : chunks_(plan(count, cols, tiles)), parts_(int64_t(chunks_.count + chunks_.groups) * cols) {
    chunks_.parts = parts_.get();
  }
  const Chunks<Part>& get() const { return chunks_; }

 private:
  static Chunks<Part> plan(int64_t count, int64_t cols, int64_t tiles) {
    count = std::max<int64_t>(count, 1);
    constexpr int64_t kJoinedAtOnce = 64;  // some 10 microseconds of one block's reads would be too many
    TESSERA_CHECK(count == 1 || 2 * tiles <= kTickets, "cuda: {} columns are too many for one launch", cols);
    int64_t groups = 1;
    if (count > kJoinedAtOnce) groups = std::min(int64_t(std::ceil(std::sqrt(double(count)))), kTickets / tiles - 1);
    const int64_t per_group = (count + groups - 1) / groups;
    return {nullptr, int(count), int(cols), int((count + per_group - 1) / per_group), int(per_group)};
  }

  Chunks<Part> chunks_;
  Scratch<Part> parts_;
};

namespace {

// Blocks that have come; all 0 between two kernels. Those that share them run one after the other, in one stream.
__device__ unsigned tickets[kTickets];

// For all threads of the block that is the last of `count` to come here with this ticket: true, and what the others have written
// before they came is there, to be read with load_left(). The ticket is 0 again. All threads of a block come here.
__device__ inline bool comes_last(unsigned* ticket, int count) {
  __syncthreads();  // the fence is for what all threads have written
  if (count == 1) return true;
  bool last = false;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(ticket, unsigned(count - 1)) == unsigned(count - 1);
    __threadfence();
  }
  return __syncthreads_or(last) != 0;
}

// What another block has left: not from the first cache, which is the multiprocessor's own.
template <class Part>
__device__ Part load_left(const Part* p) {
  constexpr int kFloats = sizeof(Part) / sizeof(float);
  static_assert(kFloats * sizeof(float) == sizeof(Part));
  float v[kFloats];
#pragma unroll
  for (int i = 0; i < kFloats; ++i) v[i] = __ldcg(reinterpret_cast<const float*>(p) + i);
  Part part;
  memcpy(&part, v, sizeof(Part));
  return part;
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

// Joins rows [first, first + rows) of `parts` in columns [begin, end): finish(column, part). Thread: a column, every lanes-th row,
// kTogether of them read together. `room`: a part for each thread.
template <class Part, class Combined, class Finish>
__device__ void join_rows(const Part* parts, int cols, int first, int rows, int begin, int end, Part* room,
                          const Combined& combined, const Finish& finish) {
  constexpr int kTogether = 4, kLeastLanes = 4;
  const int t = int(threadIdx.x), threads = int(blockDim.x);
  for (int col = begin; col < end; col += threads / kLeastLanes) {
    const int width = min(threads / kLeastLanes, end - col);
    const int lanes = threads / width;
    const int lane = t / width;
    const Part* const mine = parts + int64_t(first) * cols + col + t - lane * width;
    if (lane < lanes) {
      Part joined{};
      for (int row = lane; row < rows; row += kTogether * lanes) {
        Part read[kTogether];
#pragma unroll
        for (int k = 0; k < kTogether; ++k) {
          const int r = row + k * lanes;
          read[k] = r < rows ? load_left(mine + int64_t(r) * cols) : Part{};
        }
        const Part group = combined(kTogether, [&](int k) { return read[k]; });
        joined = combined(2, [&](int k) { return k == 0 ? joined : group; });
      }
      room[t] = joined;
    }
    fold_in_block<1>(room, width, lanes, combined);
    if (t < width) finish(col + t, room[t]);
    __syncthreads();  // `room` is free for the next columns
  }
}

// All blocks of a tile, columns [begin, end), come here after each has left its chunk in row `chunk` of the parts. finish(column,
// part) is called with what all of them have, by the last one. `room`: shared memory for a part of each thread, which is free.
template <class Part, class Combined, class Finish>
__device__ void join_chunks(const Chunks<Part>& chunks, int chunk, int tile, int begin, int end, Part* room,
                            const Combined& combined, const Finish& finish) {
  unsigned* const of_tile = tickets + tile * (chunks.groups + 1);
  const int group = chunk / chunks.per_group;
  int first = group * chunks.per_group;
  int rows = min(chunks.per_group, chunks.count - first);
  if (!comes_last(of_tile + group, rows)) return;
  for (bool all = chunks.groups == 1;; all = true) {
    join_rows(chunks.parts, chunks.cols, first, rows, begin, end, room, combined, [&](int c, const Part& joined) {
      if (all) {
        finish(c, joined);
      } else {
        chunks.parts[int64_t(chunks.count + group) * chunks.cols + c] = joined;
      }
    });
    if (all) return;
    first = chunks.count;
    rows = chunks.groups;
    if (!comes_last(of_tile + chunks.groups, rows)) return;
  }
}

}  // namespace

}  // namespace tessera::cuda
