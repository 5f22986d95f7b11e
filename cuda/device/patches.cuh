// Patches of images in shared memory, for 3 x 3 convolution at stride 1 on wgmma (cuda/conv_patch.cu, cuda/conv_patch_deep.cu).
//
// Note [Windows in a patch]: a pixel is a line of the patch, 64 channels in 128 bytes. Eight pixels side by side are eight lines,
// which is what the instructions read as eight rows of A, and they may begin at any line, since the 128-byte swizzle follows the
// address and not the row. The next eight rows of A are the pixels below, a patch's width further on. So the windows of all nine
// taps lie in one patch, and another tap is nothing but another first line.
#pragma once

#include <algorithm>
#include <bit>

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

  static __device__ int window_line(int tap) { return tap / 3 * kPitch + tap % 3; }  // the first of a tap
  __device__ const uint16_t* window(int tap, int channel) const { return &v[window_line(tap)][channel]; }
  // Starts the copies of channels [first, first + 64) of the pixels of the tile at (n, row, col) and its border, zeros outside of
  // the image: the part of thread t of `threads`.
  template <class T>
  __device__ void fill(const Images<const T>& image, int n, int row, int col, int first, int t, int threads) {
    const int channels = min(kLineChannels, image.c - first);
    const int across = channels <= 16 ? 2 : channels <= 32 ? 4 : 8;  // threads side by side: as many as a pixel has pieces
    const int piece = t % across * 8;
    if (piece >= channels) return;
    const int first_row = row - kBorder, first_col = col - kBorder;
    const T* const corner = image.p + (int64_t(n * image.h + first_row) * image.w + first_col) * image.pitch + first + piece;
    for (int line = t / across; line < kLines; line += threads / across) {
      const int down = line / kPitch, right = line - down * kPitch;
      const bool inside = unsigned(first_row + down) < unsigned(image.h) && unsigned(first_col + right) < unsigned(image.w);
      copy_ahead(&v[line][piece ^ line % 8 * 8], corner + (down * image.w + right) * image.pitch, inside);
    }
  }
};

// Divides a number below 2^31 by a product and a shift (Granlund and Montgomery 1994): an unknown divisor takes 25 instructions.
struct Divisor {
  int by;
  uint32_t multiplier, shift;
  explicit Divisor(int64_t divisor)
      : by(size32(divisor)), shift(uint32_t(std::bit_width(uint64_t(divisor - 1)))) {
    multiplier = uint32_t(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - uint64_t(divisor))) / uint64_t(divisor) + 1);
  }
  __device__ int quotient(int n) const {
    const uint32_t high = uint32_t(uint64_t(uint32_t(n)) * multiplier >> 32);
    return int((high + uint32_t(n)) >> shift);
  }
};

// The tiles of all images.
struct PatchTiles {
  Divisor across, down;
  int count;
  int cols;  // tiles of channels

  struct Place {
    int n, row, col;
  };
  template <int kSide>
  __device__ Place place(int tile) const {
    const int line = across.quotient(tile);
    const int n = down.quotient(line);
    return {n, (line - n * down.by) * kSide, (tile - line * across.by) * kSide};
  }
};

inline PatchTiles patch_tiles(const ImageView& y, int side, int cols) {
  const int64_t across = std::max<int64_t>(1, blocks_for(y.w, side)), down = std::max<int64_t>(1, blocks_for(y.h, side));
  return {Divisor(across), Divisor(down), size32(across * down * (y.w > 0 && y.h > 0 ? y.n : 0)), int(blocks_for(y.c, cols))};
}

// The two numbers of `image` where the thread's results (half, j) of a tile of 8 x 8 pixels lie (ResultPlace); zeros outside of it.
template <class T>
__device__ uint32_t pair_of(const Images<const T>& image, const PatchTiles::Place& at, int first_col, int half, int j) {
  const ResultPlace place;
  const int row = at.row + place.line(half) / 8, col = at.col + place.line(half) % 8;
  const int column = first_col + place.column(j);
  const bool there = row < image.h && col < image.w && column < image.c;
  return there ? load_pair(image.pixel(at.n, row, col) + column) : 0;
}

// The pixels of a tile of 8 x 8 as lines of results (store_lines()).
template <class T>
struct PixelLines {
  T* first;
  int rows, cols;  // that there are
  int row_pitch, pitch;
  __device__ PixelLines(const Images<T>& y, const PatchTiles::Place& at)
      : first(y.pixel(at.n, at.row, at.col)), rows(y.h - at.row), cols(y.w - at.col), row_pitch(y.w * y.pitch), pitch(y.pitch) {}
  __device__ bool has(int line) const { return line / 8 < rows && line % 8 < cols; }
  __device__ int offset(int line) const { return line / 8 * row_pitch + line % 8 * pitch; }
};

}  // namespace tessera::cuda::wgmma
