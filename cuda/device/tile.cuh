// A block's tile of a matrix product, C = sum over k of A[m, k] B[k, n]. Everything that sums over channels, taps or pixels is one:
// convolution, both of its gradients, the transposed convolution, the product itself. They differ in where A and B come from
// (cuda/device/sources.cuh) and in where C goes.
//
// The sum is formed in steps of kDepth values of k. In each, the block copies a panel of A (rows x kDepth) and of B
// (kDepth x columns) to shared memory, where every value is used by all threads of its row or column: the reuse that makes the
// product fast. Each thread keeps its part of C in registers. Panels exist twice: while the block multiplies one pair, the next is
// on its way from global memory.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/device/platform.cuh"
#include "cuda/device/tensor_core.cuh"

namespace tessera::cuda {

inline constexpr int kTileThreads = 256;  // of every block here

template <int N, class T>
__device__ Packed<T, N> load_raw(const T* p) {
  TESSERA_DEVICE_ASSERT(reinterpret_cast<uintptr_t>(p) % sizeof(Packed<T, N>) == 0);
  return *reinterpret_cast<const Packed<T, N>*>(p);
}

// kWidth rows of A, or columns of B, by kDepth values of k, as floats with the width innermost. The four floats that end a line
// keep 16-byte alignment and put the lines of neighbouring k on other banks.
template <class T, int kWidth, int kDepth>
struct alignas(16) FloatPanel {
  float v[kDepth][kWidth + 4];

  // N values from (k, at) on, neighbours in k or in the width.
  template <bool kAlongK, int N>
  __device__ void put(int k, int at, const Packed<T, N>& values) {
    if constexpr (kAlongK || N < 4) {
#pragma unroll
      for (int i = 0; i < N; ++i) v[kAlongK ? k + i : k][kAlongK ? at : at + i] = load(values.v[i]);
    } else {
#pragma unroll
      for (int g = 0; g < N; g += 4) {
        store_pack<4>(&v[k][at + g],
                      Pack<float, 4>{{load(values.v[g]), load(values.v[g + 1]), load(values.v[g + 2]), load(values.v[g + 3])}});
      }
    }
  }
};

// The product by plain fused multiply-adds in f32. The threads form a square of 16 x 16; a thread has kRows / 16 rows (in groups of
// 4, one for each 64 rows) and kCols / 16 neighbouring columns. For each k it reads its rows of A and columns of B, in wide
// accesses, and forms all products of the two.
template <class T, int kRows_, int kCols_, bool kLeftAlongK, bool kRightAlongK>
struct FmaTile {
  static constexpr int kRows = kRows_;
  static constexpr int kCols = kCols_;
  static constexpr int kRightWidth = kCols;  // of the panels
  static constexpr int kDepth = 16;
  static constexpr int kGroup = kCols / 16;  // columns that each() hands out at once
  using Left = FloatPanel<T, kRows, kDepth>;
  using Right = FloatPanel<T, kCols, kDepth>;
  static constexpr int kMine = kRows / 16;
  static_assert(kRows % 64 == 0);

  float sum[kMine][kGroup] = {};

  __device__ void multiply(const Left& left, const Right& right) {
    const int row = int(threadIdx.x) / 16 * 4;
    const int col = int(threadIdx.x) % 16 * kGroup;
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const Pack<float, kGroup> b = load_pack<kGroup>(&right.v[k][col]);
#pragma unroll
      for (int g = 0; g < kMine / 4; ++g) {
        const Pack<float, 4> a = load_pack<4>(&left.v[k][row + g * 64]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < kGroup; ++j) sum[g * 4 + i][j] += a.v[i] * b.v[j];
        }
      }
    }
  }

  // f(row, column, kGroup results from there on) for all results of the thread.
  template <class F>
  __device__ void each(F&& f) const {
    const int row = int(threadIdx.x) / 16 * 4;
    const int col = int(threadIdx.x) % 16 * kGroup;
#pragma unroll
    for (int i = 0; i < kMine; ++i) f(row + i / 4 * 64 + i % 4, col, sum[i]);
  }
};

// f32 is multiplied as it is, without rounding to what tensor cores take.
template <class T, int kRows, int kCols, bool kLeftAlongK, bool kRightAlongK>
using Tile = std::conditional_t<std::is_same_v<T, float>, FmaTile<T, kRows, kCols, kLeftAlongK, kRightAlongK>,
                                TensorCoreTile<T, kRows, kCols, kLeftAlongK, kRightAlongK>>;

// Adds `steps` panels of both sources to the tile. One barrier a step is enough: what a thread writes at step s was last read at
// step s - 1, which all have left when they pass the barrier at its end.
template <class TileT, class A, class B>
__device__ void multiply_panels(TileT& tile, A& a, B& b, int steps) {
  TESSERA_SHARED(left, typename TileT::Left[2]);
  TESSERA_SHARED(right, typename TileT::Right[2]);
  if (steps == 0) return;
  fetch(a);
  fetch(b);
  a.put(left[0]);
  b.put(right[0]);
  __syncthreads();
  for (int step = 0; step < steps; ++step) {
    const int now = step % 2;
    const bool more = step + 1 < steps;
    if (more) {
      fetch(a);
      fetch(b);
    }
    tile.multiply(left[now], right[now]);
    if (more) {
      a.put(left[1 - now]);
      b.put(right[1 - now]);
    }
    __syncthreads();
  }
}

template <class TileT>
struct Stage {
  typename TileT::Left left;
  typename TileT::Right right;
};

// The same, of packs of 16 bytes that go to shared memory by themselves: kStages panels exist, and the block waits for none but the
// oldest, so the steps before hide the latency of memory. A step's copies go where the panels of the step before were, which all
// have left when they pass the barrier. publish(): what a tile has to do before its panels are used; settle(): multiply() may have
// only begun.
template <class TileT, class A, class B>
__device__ void multiply_panels_ahead(TileT& tile, A& a, B& b, int steps, Stage<TileT>* stages) {
  constexpr int kAhead = TileT::kStages - 1;
  int filled = 0;  // the stage that is filled next
  auto copy_next = [&](bool more) {
    if (more) {
      copy(a, stages[filled].left);
      copy(b, stages[filled].right);
    }
    close_copies();
    filled = filled + 1 == TileT::kStages ? 0 : filled + 1;
  };
  for (int step = 0; step < kAhead; ++step) copy_next(step < steps);
  int now = 0;
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kAhead - 1>();
    tile.publish();
    __syncthreads();
    tile.multiply(stages[now].left, stages[now].right);
    copy_next(step + kAhead < steps);
    tile.settle();
    now = now + 1 == TileT::kStages ? 0 : now + 1;
  }
}

}  // namespace tessera::cuda
