// Results over all rows of a column whose parts come from several blocks: each block leaves what its chunk of rows gives, and a
// small kernel joins the chunks, in an order that only the shapes decide.
//
// Note [A launch more]: the last block of the first kernel could join them too. Measured on an H200 that took 8 to 12 us a kernel,
// the fences of all blocks and the rounds of one; a launch that is brought onto the device early takes 2 to 3.
#pragma once

#include <algorithm>

#include "cuda/context.h"
#include "cuda/device/platform.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda {

// count x cols parts: of each chunk of rows one for each column.
template <class Part>
struct Chunks {
  Part* parts;  // null: nobody wants them
  int count, cols;
  __device__ bool wanted() const { return parts != nullptr; }
  __device__ Part* row(int chunk) const { return parts + int64_t(chunk) * cols; }
};

// Room for them; it may go out of scope as soon as they are joined.
template <class Part>
class ChunkRoom {
 public:
  ChunkRoom(int64_t count, int64_t cols)
      : parts_(std::max<int64_t>(count, 1) * cols), chunks_{parts_.get(), size32(std::max<int64_t>(count, 1)), size32(cols)} {}
  const Chunks<Part>& get() const { return chunks_; }

 private:
  Scratch<Part> parts_;
  Chunks<Part> chunks_;
};

namespace {

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

constexpr int kJoinColumns = 8, kMostJoinThreads = 1024;

// finish(column, joined.result()) for each column. Joined is made from the first chunk's part, and adds parts of chunks and others
// of its kind. Thread: a column, every (threads / kJoinColumns)-th chunk, kTogether of them read together.
template <class Part, class Joined, class Finish>
__global__ void __launch_bounds__(kMostJoinThreads) join_chunks_kernel(Chunks<Part> chunks, Finish finish) {
  wait_for_kernel_before();
  constexpr int kTogether = 8;
  TESSERA_SHARED(of_thread, Joined[kMostJoinThreads]);
  const int t = int(threadIdx.x), lanes = int(blockDim.x) / kJoinColumns;
  const int col = int(blockIdx.x) * kJoinColumns + t % kJoinColumns;
  const Part* const mine = chunks.parts + min(col, chunks.cols - 1);
  Joined joined(*mine);
  for (int row = t / kJoinColumns; row < chunks.count; row += kTogether * lanes) {
    Part read[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) read[k] = mine[int64_t(min(row + k * lanes, chunks.count - 1)) * chunks.cols];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (row + k * lanes < chunks.count) joined.add(read[k]);
    }
  }
  of_thread[t] = joined;
  for (int left = lanes / 2; left > 0; left /= 2) {
    __syncthreads();
    if (t < left * kJoinColumns) of_thread[t].add(of_thread[t + left * kJoinColumns]);
  }
  if (t < kJoinColumns && col < chunks.cols) finish(col, of_thread[t].result());
}

// After the kernel that leaves the parts.
template <class Joined, class Part, class Finish>
void join_chunks(const char* name, const ChunkRoom<Part>& room, const Finish& finish) {
  const Chunks<Part>& chunks = room.get();
  const int threads = chunks.count > 512 ? kMostJoinThreads : 256;  // a thread has some 16 chunks
  launch(name, early({dim3(blocks_for(chunks.cols, kJoinColumns)), dim3(unsigned(threads))}),
         join_chunks_kernel<Part, Joined, Finish>, chunks, finish);
}

}  // namespace

// Of plain sums. In double: rounding it once at the end costs nothing.
struct JoinedSum {
  double sum;
  JoinedSum() = default;
  __device__ explicit JoinedSum(float) : sum(0) {}
  __device__ void add(float part) { sum += double(part); }
  __device__ void add(const JoinedSum& other) { sum += other.sum; }
  __device__ float result() const { return float(sum); }
};

}  // namespace tessera::cuda
