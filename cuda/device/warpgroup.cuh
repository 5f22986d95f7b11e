// The tile of a block (cuda/device/tile.cuh) on the warpgroup instructions of sm_90a: 16-bit operands that are read from shared
// memory as they are multiplied, sums in f32. How panels and sums lie: begin_multiply_add() of cuda/device/platform.cuh.
#pragma once

#include <algorithm>

#include "cuda/device/element.cuh"
#include "cuda/device/platform.cuh"

namespace tessera::cuda {

inline constexpr int kWarpgroup = 128;  // threads

// Shared memory of a multiprocessor of sm_90; every resident block takes kReservedShared beside what it asks for.
inline constexpr size_t kSharedOfMultiprocessor = 228 << 10, kReservedShared = 1 << 10;

// What a block may ask for if a multiprocessor is to hold `blocks` of them.
constexpr size_t shared_of_block(int blocks) { return kSharedOfMultiprocessor / size_t(blocks) - kReservedShared; }

// Blocks that a multiprocessor holds at a time, when registers leave room for `by_registers`.
constexpr int resident_blocks(size_t shared_bytes, int by_registers) {
  return std::min(by_registers, int(kSharedOfMultiprocessor / (shared_bytes + kReservedShared)));
}

// An operand in the 128-byte swizzle that the instructions read: kWidth rows of A or columns of B by 64 values of k. A line of 128
// bytes is a row or column (kAlongK), or else one value of k for 64 rows or columns; piece p of 16 bytes of line r lies at p ^ r
// % 8.
template <int kWidth, bool kAlongK>
struct alignas(1024) SwizzledPanel {
  static constexpr int kDepth = 64;
  uint16_t v[kAlongK ? kWidth : (kWidth + 63) / 64 * kDepth][64];

  __device__ uint16_t* place(int k, int at) {
    const unsigned line = unsigned(kAlongK ? at : at / 64 * kDepth + k);
    const unsigned piece = unsigned(kAlongK ? k : at % 64) / 8;
    return &v[line][(piece ^ line % 8) * 8];
  }
  // Where (k, at) would lie without the swizzle: what the instructions want to be told.
  __device__ const uint16_t* first(int k, int at) const { return kAlongK ? &v[at][k] : &v[at / 64 * kDepth + k][at % 64]; }
};

// The 8 warps are two warpgroups with 64 rows each, or half of the columns if there are no more rows.
template <class T, int kRows_, int kCols_, bool kLeftAlongK, bool kRightAlongK>
struct WarpgroupTile {
  static constexpr int kRows = kRows_;
  static constexpr int kCols = kCols_;
  static constexpr int kRightWidth = kRightAlongK ? kCols : kCols == 96 ? 128 : kCols;  // of the panels
  static constexpr int kDepth = 64;
  static constexpr int kGroup = 2;  // columns that each() hands out at once
  static constexpr int kStages = 3;
  static constexpr int kResident = kRows * kCols > 128 * 64 ? 2 : 3;  // blocks of a multiprocessor, by shared memory and registers
  using Left = SwizzledPanel<kRows, kLeftAlongK>;
  using Right = SwizzledPanel<kRightWidth, kRightAlongK>;

  static constexpr int kMine = kRows == 64 ? kCols / 2 : kCols;  // columns of one warpgroup
  static_assert(kRows == 64 || kRows == 128);

  float sum[kMine / 8][2][2] = {};

  static __device__ int first_row() { return kRows == 64 ? 0 : int(threadIdx.x / 128) * 64; }
  static __device__ int first_col() { return kRows == 64 ? int(threadIdx.x / 128) * kMine : 0; }

  // Only begins: the next panels are asked for meanwhile.
  __device__ void multiply(const Left& left, const Right& right) {
    open_products();
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      begin_multiply_add<T, kLeftAlongK, kRightAlongK>(sum, left.first(k, first_row()), right.first(k, first_col()));
    }
    close_products();
  }
  __device__ void settle() { wait_for_products(sum); }
  __device__ void publish() { publish_to_products(); }

  // f(row, column, kGroup results from there on) for all results of the thread.
  template <class F>
  __device__ void each(F&& f) const {
    const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x % 128 / 32);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < kMine / 8; ++j) {
        f(first_row() + warp * 16 + half * 8 + lane / 4, first_col() + j * 8 + lane % 4 * 2, sum[j][half]);
      }
    }
  }
};

}  // namespace tessera::cuda
