// Mosaic, warp, colours and mirroring of training images in one pass (tensor/augment.h). The numbers are those of
// data/transforms, in the same order of operations; this file is compiled without contraction of a * b + c (cmake/cuda.cmake), or
// they would not be.
#include <cmath>

#include "cuda/augment.h"
#include "cuda/device/views.cuh"
#include "cuda/launch.cuh"

namespace tessera::cuda {

namespace {

struct Color {
  int c[3];
};
struct Real {
  float c[3];
};

// The canvas at a pixel: the tile that covers it, or the border.
__device__ Real tap(const AugmentItem& item, const uint8_t* tiles, int x, int y) {
  if (x >= 0 && y >= 0 && x < item.canvas_width && y < item.canvas_height) {
    for (int k = 0; k < item.tile_count; ++k) {
      const AugmentTile& t = item.tiles[k];
      const int column = x - t.x;
      const int row = y - t.y;
      if (column < 0 || row < 0 || column >= t.width || row >= t.height) continue;
      const uint8_t* const p = tiles + t.begin + (int64_t(row) * t.width + column) * 3;
      return {{float(p[0]), float(p[1]), float(p[2])}};
    }
  }
  return {{float(kBorderValue), float(kBorderValue), float(kBorderValue)}};
}

__device__ Real blend(const Real& a, const Real& b, float share) {
  Real out;
#pragma unroll
  for (int i = 0; i < 3; ++i) out.c[i] = a.c[i] + share * (b.c[i] - a.c[i]);
  return out;
}

__device__ Color sample(const AugmentItem& item, const uint8_t* tiles, int x, int y) {
  const float* const m = item.inverse;
  const float fx = float(x);
  const float fy = float(y);
  float sx;
  float sy;
  if (item.path == AugmentPath::kPerspective) {
    const float z = m[6] * fx + (m[7] * fy + m[8]);
    sx = (m[0] * fx + (m[1] * fy + m[2])) / z;
    sy = (m[3] * fx + (m[4] * fy + m[5])) / z;
  } else {
    // Of a scale and shift m[1] and m[3] are 0, which adds nothing.
    sx = m[0] * fx + (m[1] * fy + m[2]);
    sy = m[3] * fx + (m[4] * fy + m[5]);
  }
  // Far outside, also where the conversion to int would overflow or the position is not a number.
  if (!(sx > -1 && sy > -1 && sx < float(item.canvas_width) && sy < float(item.canvas_height)))
    return {{kBorderValue, kBorderValue, kBorderValue}};
  const float floor_x = floorf(sx);
  const float floor_y = floorf(sy);
  const int ix = int(floor_x);
  const int iy = int(floor_y);
  const Real a = tap(item, tiles, ix, iy);
  const Real b = tap(item, tiles, ix + 1, iy);
  const Real d = tap(item, tiles, ix, iy + 1);
  const Real e = tap(item, tiles, ix + 1, iy + 1);
  const float share_x = sx - floor_x;
  const float share_y = sy - floor_y;
  const Real value = item.path == AugmentPath::kRows ? blend(blend(a, d, share_y), blend(b, e, share_y), share_x)
                                                     : blend(blend(a, b, share_x), blend(d, e, share_x), share_y);
  return {{int(rintf(value.c[0])), int(rintf(value.c[1])), int(rintf(value.c[2]))}};
}

// n / x rounded to the nearest whole number, as OpenCV's tables have it.
__device__ int ratio(float n, int x) { return int(rintf(n / float(x))); }

// RGB to HSV, the change, and back (data/transforms/hsv.h). Of the way back only the middle and the lowest channel need arithmetic;
// the sector of the hue says which channel is which.
__device__ Color recolored(const Color& in, const AugmentItem& item) {
  const int r = in.c[0];
  const int g = in.c[1];
  const int b = in.c[2];
  const int v = max(r, max(g, b));
  const int spread = v - min(r, min(g, b));
  const int s = (spread * ratio(1044480.0f, max(v, 1)) + 2048) >> 12;
  const int numerator = v == r ? g - b : v == g ? b - r + 2 * spread : r - g + 4 * spread;
  int hue = ((numerator * ratio(122880.0f, max(spread, 1)) + 2048) >> 12) + item.hue_shift;
  if (hue < 0) hue += 180;
  if (hue >= 180) hue -= 180;
  constexpr float kUnit = 1.0f / 255.0f;
  const float saturation = float(min((s * item.saturation_gain) >> kHsvGainBits, 255)) * kUnit;
  const float value = float(min((v * item.value_gain) >> kHsvGainBits, 255)) * kUnit;
  const float sixths = float(hue) * (6.0f / 180.0f);
  const float sector = floorf(sixths);
  const float fraction = sixths - sector;
  const int which = int(sector);
  const float share = which % 2 == 1 ? fraction : 1.0f - fraction;
  const int high = int(floorf(value * 255.0f));
  const int middle = int(floorf(value * (1.0f - saturation * share) * 255.0f));
  const int low = int(floorf(value * (1.0f - saturation) * 255.0f));
  switch (which) {
    case 0: return {{high, middle, low}};
    case 1: return {{middle, high, low}};
    case 2: return {{low, high, middle}};
    case 3: return {{low, middle, high}};
    case 4: return {{middle, low, high}};
    default: return {{high, low, middle}};
  }
}

// One thread a pixel, blockIdx.y an image: a warp writes 96 bytes in a row and reads four neighbourhoods of about as many, out of
// the second-level cache for all but the first.
__global__ void __launch_bounds__(256) augment_kernel(const AugmentItem* items, const uint8_t* tiles, Images<uint8_t> images) {
  const int index = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= images.h * images.w) return;
  const AugmentItem& item = items[blockIdx.y];
  const int y = index / images.w;
  const int x = index - y * images.w;
  uint8_t* const out = images.pixel(int(blockIdx.y), y, x);
  if (item.path == AugmentPath::kFinished) {
    const uint8_t* const from = tiles + item.tiles[0].begin + int64_t(index) * 3;
    for (int i = 0; i < 3; ++i) out[i] = from[i];
    return;
  }
  const int from_x = item.mirror != 0 ? images.w - 1 - x : x;
  const int from_y = item.flip != 0 ? images.h - 1 - y : y;
  const Color color = recolored(sample(item, tiles, from_x, from_y), item);
  out[0] = uint8_t(item.swap_channels != 0 ? color.c[2] : color.c[0]);
  out[1] = uint8_t(color.c[1]);
  out[2] = uint8_t(item.swap_channels != 0 ? color.c[0] : color.c[2]);
}

}  // namespace

void augment(const AugmentItem* items, const uint8_t* tiles, ImageView images) {
  if (images.n == 0) return;
  const dim3 blocks(blocks_for(images.h * images.w, 256), unsigned(images.n));
  launch("augment", {blocks, dim3(256)}, augment_kernel, items, tiles, images_of<uint8_t>(images));
}

}  // namespace tessera::cuda
