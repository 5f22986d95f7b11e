// Results of a warpgroup's product on their way from registers to memory, as lines of neighbouring columns.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/device/math.cuh"
#include "cuda/device/platform.cuh"
#include "cuda/device/tile.cuh"

namespace tessera::cuda::wgmma {

// Where a thread's results lie (begin_multiply_add() of cuda/device/platform.cuh): in line(half) of the product column(j) and the
// next.
struct ResultPlace {
  int lane = int(threadIdx.x % 32), warp = int(threadIdx.x % 128 / 32);
  __device__ int line(int half) const { return warp * 16 + half * 8 + lane / 4; }
  __device__ int column(int j) const { return j * 8 + lane % 4 * 2; }
};

// y[line, column] = act(sum + bias[column]) + added, of 64 lines and kCols columns from first_col on, `columns` in all. Each warp
// stores packs of 16 bytes of its own lines by way of `results`, which hold all of them afterwards. added(half, j): of the thread's
// two columns in j. to(line): where the line begins in memory, null: nowhere.
template <class T, int kCols, int kPitch, class Added, class To>
__device__ void store_lines(const float (&sum)[kCols / 8][2][2], uint16_t (&results)[64][kPitch], int first_col, int columns,
                            const float* bias, Activation act, Added&& added, To&& to) {
  const ResultPlace place;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
      const int column = first_col + place.column(j);
      const Packed<T, 2> more = added(half, j);
      Packed<T, 2> v;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float b = bias != nullptr && column < columns ? bias[column + i] : 0.0f;
        v.v[i] = rounded<T>(activate(act, sum[j][half][i] + b) + load(more.v[i]));
      }
      *reinterpret_cast<Packed<T, 2>*>(&results[place.line(half)][place.column(j)]) = v;
    }
  }
  __syncwarp();
  constexpr int kPacks = kCols / 8;
#pragma unroll
  for (int i = 0; i < 16 * kPacks / 32; ++i) {
    const int index = place.lane + i * 32;
    const int line = place.warp * 16 + index / kPacks;
    const int in_tile = index % kPacks * 8;
    T* const out = first_col + in_tile < columns ? to(line) : nullptr;
    if (out != nullptr) {
      *reinterpret_cast<Packed<T, 8>*>(out + first_col + in_tile) =
          load_raw<8>(reinterpret_cast<const T*>(&results[line][in_tile]));
    }
  }
}

}  // namespace tessera::cuda::wgmma
