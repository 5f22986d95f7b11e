// Patches of images in shared memory, for 3 x 3 convolution at stride 1 on wgmma (cuda/conv_patch.cu, cuda/conv_patch_deep.cu).
//
// Note [Windows in a patch]: a pixel is a line of the patch, 64 channels in 128 bytes, so eight neighbours are eight lines as an
// operand wants them, wherever they begin: pieces take turns by the address, not by the row. Eight rows of A are eight pixels side
// by side, the next eight are those below, a patch's width further; another tap is another first line.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/device/platform.cuh"
#include "cuda/device/result_lines.cuh"
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

// What there is of `image` at the thread's results in (half, j) of a tile of 8 x 8 pixels (ResultPlace), or zeros.
template <class T>
__device__ Packed<T, 2> pair_of(const Images<const T>& image, const PatchTiles::Place& at, int first_col, int half, int j) {
  const ResultPlace place;
  const int row = at.row + place.line(half) / 8, col = at.col + place.line(half) % 8;
  const int column = first_col + place.column(j);
  const bool there = image.p != nullptr && row < image.h && col < image.w && column < image.c;
  return there ? load_packed<2>(image.pixel(at.n, row, col) + column) : Packed<T, 2>{};
}

// The results of a product of 64 pixels, 8 x 8 of them at `at`: store_lines(), a pixel being a line.
template <class T, int kCols, int kPitch, class Added>
__device__ void store_pixels(const float (&sum)[kCols / 8][2][2], uint16_t (&results)[64][kPitch], const PatchTiles::Place& at,
                             int first_col, const Images<T>& y, const float* bias, Activation act, Added&& added) {
  store_lines<T, kCols>(sum, results, first_col, y.c, bias, act, added, [&](int pixel) -> T* {
    const int row = at.row + pixel / 8, col = at.col + pixel % 8;
    return row < y.h && col < y.w ? y.pixel(at.n, row, col) : nullptr;
  });
}

}  // namespace tessera::cuda::wgmma
