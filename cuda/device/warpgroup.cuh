// The tile of a block (cuda/device/tile.cuh) on the warpgroup instructions of sm_90a: 16-bit operands that are read from shared
// memory as they are multiplied, sums in f32. How panels and sums lie: begin_multiply_add() of cuda/device/platform.cuh.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/device/platform.cuh"

namespace tessera::cuda {

// kWidth lines, rows of A or columns of B, of 64 values of k.
template <int kWidth>
struct alignas(1024) TurningPanel {
  uint16_t v[kWidth][64];

  template <bool kPackAlongK, class T, int N>
  __device__ void put(int k, int at, const Packed<T, N>& values) {
    static_assert(kPackAlongK && N == 8);
    Packed<uint16_t, N> bits;
#pragma unroll
    for (int i = 0; i < N; ++i) bits.v[i] = values.v[i].bits;
    *reinterpret_cast<Packed<uint16_t, N>*>(&v[at][(k / N ^ at % 8) * N]) = bits;
  }
};

// The 8 warps are two warpgroups with half of the rows each.
template <class T>
struct WarpgroupTile {
  static constexpr int kRows = 128;
  static constexpr int kCols = 64;
  static constexpr int kDepth = 64;
  static constexpr int kGroup = 2;  // columns that each() hands out at once
  using Left = TurningPanel<kRows>;
  using Right = TurningPanel<kCols>;

  float sum[kCols / 8][2][2] = {};

  static __device__ int first_row() { return int(threadIdx.x) / 128 * 64; }

  // Only begins; the next panels are stored meanwhile.
  __device__ void multiply(const Left& left, const Right& right) {
    open_products();
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) begin_multiply_add<T>(sum, &left.v[first_row()][k], &right.v[0][k]);
    close_products();
  }
  __device__ void settle() {
    wait_for_products(sum);
    publish_to_products();
  }

  // f(row, column, kGroup results from there on) for all results of the thread.
  template <class F>
  __device__ void each(F&& f) const {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) % 128 / 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < kCols / 8; ++j) f(first_row() + warp * 16 + half * 8 + lane / 4, j * 8 + lane % 4 * 2, sum[j][half]);
    }
  }
};

}  // namespace tessera::cuda
