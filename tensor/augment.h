// Pixels of training images made on a device: mosaic, affine or perspective warp, change of colours and mirroring in one pass
// from decoded tiles. What is drawn at random, labels and masks are the host's part (data/pixel_plan.h).
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace tessera {

inline constexpr uint8_t kBorderValue = 114;  // of all three channels, where no image is
inline constexpr int kHsvGainBits = 22;       // fixed point of gains: 255 times a gain of up to 2 stays below 2^31

enum class AugmentPath : int32_t {
  kFinished,     // tile 0 is the image: copied
  kRows,         // scale and shift: rows are blended first, then columns
  kAffine,       // columns first, then rows
  kPerspective,  // the same, positions divided by the third row
};

// An image on the canvas. Tiles do not overlap; what no tile covers is kBorderValue, within the canvas and without.
struct AugmentTile {
  int64_t begin = 0;  // of its height x width x 3 bytes in the buffer of all tiles
  int32_t height = 0, width = 0;
  int32_t x = 0, y = 0;  // where its corner lies on the canvas; what reaches beyond is cut off
};

// One image: position (x, y) of the output before mirroring takes the canvas at `inverse` (x, y, 1), bilinear, rounded to the
// nearest even; then hue + hue_shift modulo 180, saturation and value times gain / 2^kHsvGainBits, clipped and truncated, in
// OpenCV's 8-bit HSV.
struct AugmentItem {
  AugmentTile tiles[4];
  float inverse[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  int32_t tile_count = 0, canvas_height = 0, canvas_width = 0;
  AugmentPath path = AugmentPath::kFinished;
  int32_t hue_shift = 0, saturation_gain = 1 << kHsvGainBits, value_gain = 1 << kHsvGainBits;
  int32_t mirror = 0, flip = 0, swap_channels = 0;  // left and right; top and bottom; red and blue. kFinished obeys none of these
};

// images: u8 (N, H, W, 3), dense, one for each of N items. `items` and `tiles` are on the device; starts the work and returns.
using AugmentKernel = void (*)(const AugmentItem* items, const uint8_t* tiles, ImageView images);
void set_augment_kernel(Device::Kind kind, AugmentKernel kernel);
AugmentKernel augment_kernel(Device::Kind kind);  // null: that kind has none

// What a kernel does not look at: tiles lie within `bytes`, finished images are height x width. TESSERA_CHECK.
void check_items(std::span<const AugmentItem> items, int64_t bytes, int64_t height, int64_t width);

// The images of items (checked; N of them, as bytes) and tiles (u8), both of one dimension and on a device, into `images`, dense
// u8 (N, H, W, 3). Error(kUsage): a device without a kernel for it.
void augment_images(const Tensor& items, const Tensor& tiles, const Tensor& images);

}  // namespace tessera
