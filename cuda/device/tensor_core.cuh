// The tile of a block (cuda/device/tile.cuh) on tensor cores: 16-bit operands, sums in f32. Instructions and how they spread a
// matrix over the lanes of a warp: load_matrices() and multiply_add() of cuda/device/platform.cuh.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/device/platform.cuh"
#include "cuda/device/reduce.cuh"

namespace tessera::cuda {

// kWidth rows of A, or columns of B, by kDepth values of k, as the bits that came from memory. What was adjacent there is adjacent
// here: lines run along k or along the width, and are turned, if need be, on the way to the registers. The eight numbers that end a
// line put the eight lines that are read at once on different banks.
template <int kWidth, int kDepth, bool kAlongK>
struct alignas(16) BitPanel {
  uint16_t v[kAlongK ? kWidth : kDepth][(kAlongK ? kDepth : kWidth) + 8];

  __device__ uint16_t* place(int k, int at) { return kAlongK ? &v[at][k] : &v[k][at]; }

  template <bool kPackAlongK, class T, int N>
  __device__ void put(int k, int at, const Packed<T, N>& values) {
    static_assert(kPackAlongK == kAlongK);
    Packed<uint16_t, N> bits;
#pragma unroll
    for (int i = 0; i < N; ++i) bits.v[i] = values.v[i].bits;
    *reinterpret_cast<Packed<uint16_t, N>*>(place(k, at)) = bits;
  }

  // The four blocks of 8 x 8 of the 16 x 16 from (at, k) on, rows being the width and columns k. kWidthFirst: blocks 0 and 1 share
  // their k, as A is multiplied; else their place in the width, as B is. Lane l brings the address of line l % 8 of block l / 8.
  template <bool kWidthFirst>
  __device__ void load_blocks(unsigned (&blocks)[4], int at, int k) const {
    const int block = int(threadIdx.x) % kWarp / 8;
    const int line = int(threadIdx.x) % 8;
    const int at_half = (kWidthFirst ? block % 2 : block / 2) * 8;
    const int k_half = (kWidthFirst ? block / 2 : block % 2) * 8;
    load_matrices<!kAlongK>(blocks, kAlongK ? &v[at + at_half + line][k + k_half] : &v[k + k_half + line][at + at_half]);
  }
};

// The 8 warps share the tile as 4 x 2 parts of kRows / 4 by kCols / 2; a warp's part is a grid of 16 x 8 products. For every 16
// values of k a warp loads its rows of A and its columns of B once and multiplies each with each.
template <class T, int kRows_, int kCols_, bool kLeftAlongK, bool kRightAlongK>
struct TensorCoreTile {
  static constexpr int kRows = kRows_;
  static constexpr int kCols = kCols_;
  static constexpr int kRightWidth = kCols;  // of the panels
  static constexpr int kDepth = 32;
  static constexpr int kGroup = 2;  // columns that each() hands out at once
  static constexpr int kStages = 4;
  static constexpr int kResident = kRows * kCols <= 64 * 64 ? 4 : kRightAlongK ? 3 : 2;  // blocks of a multiprocessor, by registers
  using Left = BitPanel<kRows, kDepth, kLeftAlongK>;
  using Right = BitPanel<kCols, kDepth, kRightAlongK>;
  static constexpr int kDown = kRows / 4 / 16;
  static constexpr int kRight = kCols / 2 / 8;
  static_assert(kDown >= 1 && kRight % 2 == 0);

  float sum[kDown][kRight][2][2] = {};  // of a 16 x 8 product a lane has rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the next

  static __device__ int first_row() { return int(threadIdx.x) / kWarp % 4 * (kRows / 4); }
  static __device__ int first_col() { return int(threadIdx.x) / kWarp / 4 * (kCols / 2); }

  __device__ void multiply(const Left& left, const Right& right) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      unsigned b[kRight / 2][4];  // two neighbours in one: k and k + 8 of the first, then of the second
#pragma unroll
      for (int j = 0; j < kRight / 2; ++j) right.template load_blocks<false>(b[j], first_col() + j * 16, k);
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        unsigned a[4];
        left.template load_blocks<true>(a, first_row() + i * 16, k);
#pragma unroll
        for (int j = 0; j < kRight; ++j) multiply_add<T>(sum[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    }
  }

  __device__ void settle() {}
  __device__ void publish() {}

  // f(row, column, kGroup results from there on) for all results of the thread.
  template <class F>
  __device__ void each(F&& f) const {
    const int lane = int(threadIdx.x) % kWarp;
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int j = 0; j < kRight; ++j) {
          f(first_row() + i * 16 + half * 8 + lane / 4, first_col() + j * 8 + lane % 4 * 2, sum[i][j][half]);
        }
      }
    }
  }
};

}  // namespace tessera::cuda
