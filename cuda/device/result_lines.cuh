// Results of a warpgroup's product on their way from registers to memory, as lines of neighbouring columns.
//
// Note [Instructions of a tile]: a multiprocessor starts four instructions of warps a cycle, and tiles of few channels have few
// cycles of products or bytes: 64 pixels of 32 + 32 channels 460. What every result takes counts, so the plain case, which is all
// of training's forward pass, has a path of its own: an instruction to round two results and one to store them.
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

// What becomes of sums: act(sum + bias[column]) + what is added.
struct ResultEpilogue {
  const float* bias;  // null: 0
  Activation act;
  bool adds;
  __device__ bool plain() const { return bias == nullptr && act == Activation::kNone && !adds; }
};

// The results of 64 lines and kCols columns from first_col on, of `columns` in all, rounded: the thread's two of each (half, j).
// added(half, j): what is added to them.
template <class T, int kCols, class Added>
__device__ void round_results(const float (&sum)[kCols / 8][2][2], int first_col, int columns, const ResultEpilogue& epilogue,
                              Added&& added, uint32_t (&pairs)[2][kCols / 8]) {
  if (epilogue.plain()) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < kCols / 8; ++j) pairs[half][j] = rounded_pair<T>(sum[j][half][0], sum[j][half][1]);
    }
    return;
  }
  const auto finish = [&](auto activated) {
    const ResultPlace place;
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
      const int column = first_col + place.column(j);
      const bool biased = epilogue.bias != nullptr && column < columns;
      const float bias[2] = {biased ? epilogue.bias[column] : 0.0f, biased ? epilogue.bias[column + 1] : 0.0f};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t more = epilogue.adds ? added(half, j) : 0;
        float v[2] = {sum[j][half][0] + bias[0], sum[j][half][1] + bias[1]};
        if constexpr (activated) v[0] = activate(epilogue.act, v[0]), v[1] = activate(epilogue.act, v[1]);
        pairs[half][j] = rounded_pair<T>(v[0] + first_of<T>(more), v[1] + second_of<T>(more));
      }
    }
  };
  epilogue.act == Activation::kNone ? finish(std::false_type{}) : finish(std::true_type{});
}

// y[line, first_col..] = the results. Each warp stores packs of 16 bytes of its own lines by way of `results`, which hold all of
// them afterwards. Lines: first, where line 0 begins in memory; offset(line), elements from there; has(line), whether it is there.
template <class T, int kCols, int kPitch, class Lines>
__device__ void store_lines(const uint32_t (&pairs)[2][kCols / 8], uint16_t (&results)[64][kPitch], int first_col, int columns,
                            const Lines& lines) {
  const ResultPlace place;
  uint16_t* const mine = &results[place.line(0)][place.column(0)];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) *reinterpret_cast<uint32_t*>(mine + half * 8 * kPitch + j * 8) = pairs[half][j];
  }
  __syncwarp();
  constexpr int kPacks = kCols / 8;  // of a line
#pragma unroll
  for (int i = 0; i < 16 * kPacks / 32; ++i) {
    const int index = place.lane + i * 32;
    const int line = place.warp * 16 + index / kPacks;
    const int column = first_col + index % kPacks * 8;
    if (column < columns && lines.has(line)) {
      *reinterpret_cast<Packed<T, 8>*>(lines.first + (lines.offset(line) + column)) =
          load_raw<8>(reinterpret_cast<const T*>(&results[line][index % kPacks * 8]));
    }
  }
}

}  // namespace tessera::cuda::wgmma
