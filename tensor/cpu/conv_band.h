// Copies a band of image rows into scratch memory with a zero border, so that the kernels need no bounds and no pitch.
#pragma once

#include "tensor/cpu/conv_tile.h"
#include "tensor/views.h"

namespace tessera::cpu {

// Rows [row, row + rows) and columns [column, column + columns) of image n; both ranges may leave the image, where they read zero.
struct BandWindow {
  int64_t n, row, rows, column, columns;
};

// out[r * row_pitch + c * depth + i] for channel i < depth, zero from x.c on; row_pitch >= columns * depth.
template <class T>
void copy_band(const ImageView& x, const BandWindow& window, int64_t depth, T* out, int64_t row_pitch);

// `pixels` pixels from `pixel` on, counted over all images and cut at the end of the last, channels [channel, channel + channels).
template <class T>
Ahead ahead_of(const ImageView& x, int64_t pixel, int64_t pixels, int64_t channel, int64_t channels);

}  // namespace tessera::cpu
