// Patches of images in shared memory, for 3 x 3 convolution at stride 1 on wgmma (cuda/conv_patch.cu, cuda/conv_patch_deep.cu).
//
// Note [Windows in a patch]: a pixel is a line of the patch, 64 channels in 128 bytes, so eight neighbours are eight lines as an
// operand wants them, wherever they begin: pieces take turns by the address, not by the row. Eight rows of A are eight pixels side
// by side, the next eight are those below, a patch's width further; another tap is another first line.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/device/math.cuh"
#include "cuda/device/platform.cuh"
#include "cuda/device/tile.cuh"
#include "cuda/device/views.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda::wgmma {

constexpr int kTaps = 9;
constexpr int kLineChannels = 64;

// A tile of kSide x kSide pixels with a border.
template <int kSide>
struct alignas(1024) Patch {
  static constexpr int kBorder = 1;
  static constexpr int kPitch = kSide + 2 * kBorder;
  static constexpr int kLines = kPitch * kPitch;
  uint16_t v[(kLines + 7) / 8 * 8][kLineChannels];

  __device__ const uint16_t* window(int tap, int channel) const { return &v[tap / 3 * kPitch + tap % 3][channel]; }
  // Copies of channels [first, first + 64) of the pixels of the tile at (n, row, col) begin, zeros outside of the image: the part
  // of thread t of `threads`.
  template <class T>
  __device__ void fill(const Images<const T>& image, int n, int row, int col, int first, int t, int threads) {
    const int channels = min(kLineChannels, image.c - first);
    const int across = channels <= 16 ? 2 : channels <= 32 ? 4 : 8;  // threads side by side: as many as a pixel has pieces
    const int piece = t % across * 8;
    if (piece >= channels) return;
    for (int line = t / across; line < kLines; line += threads / across) {
      const int in_patch = line / kPitch;
      const int y = row - kBorder + in_patch;
      const int x = col - kBorder + line - in_patch * kPitch;
      const bool inside = unsigned(y) < unsigned(image.h) && unsigned(x) < unsigned(image.w);
      copy_ahead(&v[line][piece ^ line % 8 * 8], image.pixel(n, y, x) + first + piece, inside);
    }
  }
};

// The tiles of all images.
struct PatchTiles {
  int across, down, count;
  int cols;  // tiles of channels

  struct Place {
    int n, row, col;
  };
  template <int kSide>
  __device__ Place place(int tile) const {
    const int line = tile / across;
    const int n = line / down;
    return {n, (line - n * down) * kSide, (tile - line * across) * kSide};
  }
};

inline PatchTiles patch_tiles(const ImageView& y, int side, int cols) {
  PatchTiles tiles{int(blocks_for(y.w, side)), int(blocks_for(y.h, side)), 0, int(blocks_for(y.c, cols))};
  tiles.count = size32(int64_t(tiles.across) * tiles.down * y.n);
  return tiles;
}

// Columns j * 8 + 2 (lane % 4) and the next of the pixel that a thread has of a tile of 8 x 8 in `half` of its results: what is there
// of `image`, or zeros.
template <class T>
__device__ Packed<T, 2> pair_of(const Images<const T>& image, const PatchTiles::Place& at, int first_col, int half, int j) {
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x % 128 / 32);
  const int row = at.row + warp * 2 + half, col = at.col + lane / 4;
  const int column = first_col + j * 8 + lane % 4 * 2;
  const bool there = image.p != nullptr && row < image.h && col < image.w && column < image.c;
  return there ? load_raw<2>(image.pixel(at.n, row, col) + column) : Packed<T, 2>{};
}

// The results of a product of 64 pixels, 8 x 8 of them at `at`, and kCols columns, out of the registers of a warpgroup
// (begin_multiply_add() of cuda/device/platform.cuh): y[pixel, column] = act(sum + bias[column]) + added. Each warp stores lines of
// 16 bytes of its own pixels by way of `results`, which hold all of them afterwards. added(half, j): of the thread's two columns
// among eight, j * 8 and the next seven.
template <class T, int kCols, int kPitch, class Added>
__device__ void store_pixels(const float (&sum)[kCols / 8][2][2], uint16_t (&results)[64][kPitch], const PatchTiles::Place& at,
                             int first_col, const Images<T>& y, const float* bias, Activation act, Added&& added) {
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x % 128 / 32);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
      const int in_tile = j * 8 + lane % 4 * 2;
      const int column = first_col + in_tile;
      const Packed<T, 2> more = added(half, j);
      Packed<T, 2> v;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float b = bias != nullptr && column < y.c ? bias[column + i] : 0.0f;
        v.v[i] = rounded<T>(activate(act, sum[j][half][i] + b) + load(more.v[i]));
      }
      *reinterpret_cast<Packed<T, 2>*>(&results[warp * 16 + half * 8 + lane / 4][in_tile]) = v;
    }
  }
  __syncwarp();
  constexpr int kPacks = kCols / 8;
#pragma unroll
  for (int i = 0; i < 16 * kPacks / 32; ++i) {
    const int index = lane + i * 32;
    const int pixel = warp * 16 + index / kPacks;
    const int in_tile = index % kPacks * 8;
    const int row = at.row + pixel / 8, col = at.col + pixel % 8;
    if (row < y.h && col < y.w && first_col + in_tile < y.c) {
      *reinterpret_cast<Packed<T, 8>*>(y.pixel(at.n, row, col) + first_col + in_tile) =
          load_raw<8>(reinterpret_cast<const T*>(&results[pixel][in_tile]));
    }
  }
}

}  // namespace tessera::cuda::wgmma
