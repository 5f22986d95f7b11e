// Masks from prototypes and coefficients (spec 4.3), and what happens to them afterwards: comparison with the truth (9.2), the form
// of the JSON file (9.6), polygons (4.4), boxes in the original image (4.2). A mask is computed inside its box only, where the network
// ran, and handed on as a patch or as run lengths, so memory does not grow with detections times pixels.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "data/bit_resize.h"
#include "data/polygon.h"
#include "data/rle.h"
#include "tensor/bit_rows.h"
#include "yolo/eval/detections.h"

namespace tessera {

struct MaskPatch;

// The part of a mask that can hold set pixels, in words that lie elsewhere; everything outside of `where` is zero.
struct MaskView {
  int height = 0, width = 0;  // of the whole mask
  PixelBox where;
  const uint32_t* words = nullptr;  // of `where`, rows of bits (tensor/bit_rows.h)

  int64_t row_words() const { return words_of_row(where.width()); }
  bool any() const;
  std::vector<uint8_t> pixels() const;  // of `where`, row by row, bytes 0/1
  void paint(uint8_t* mask, int64_t pitch = 0) const;  // writes the whole mask as bytes, rows `pitch` apart (0 = width)
  Rle rle() const { return rle_encode(words, where, height, width); }
  MaskPatch copy() const;
};

// The same with words of its own.
struct MaskPatch {
  int height = 0, width = 0;
  PixelBox where;
  std::vector<uint32_t> words;

  MaskView view() const { return {height, width, where, words.data()}; }
  operator MaskView() const { return view(); }
  Rle rle() const { return view().rle(); }
};

enum class MaskSize {
  kPrototype,  // that of the prototypes: comparison with the truth during training
  kNetwork,    // cropped at prototype size, then enlarged: what predict shows. Reaches up to 6 pixels beyond the box
  kNative,     // enlarged first, then cropped exactly: retina masks, JSON and final validation
};

// What is computed of the mask of detection i of an image (tensor/ops/detect.h), from its box in network-input pixels. Prototypes cover
// the network input, a quarter of its size in each direction.
MaskItem mask_item(const BatchDetections& found, int64_t image, int64_t i, int network_height, int network_width, MaskSize size);
// kNative for a target of height x width with a box in target pixels. A target of another shape than the prototypes is taken from
// their middle: what is left and right, or above and below, is letterbox padding.
MaskItem native_mask_item(const BatchDetections& found, int64_t image, int64_t i, const BoxXyxy& box, int height, int width);

// Of a device's masks that are there at a time, if one alone does not take more.
inline constexpr int64_t kMaskWordsAtOnce = int64_t{4} << 20;

// Computes the pixels of all items and calls take(item, mask) for each, on all threads, in any order. A mask is good until take
// returns.
void for_each_mask(const BatchDetections& found, std::span<const MaskItem> items,
                   const std::function<void(int64_t item, const MaskView& mask)>& take);

// Truth masks to compare them with: label j is where index_map == j + 1 (overlap form), or plane j (separate form), of height x
// width. When the target size differs they are resized, bilinear, and set above 0.5.
enum class LabelMasks { kOverlap, kSeparate };
RunList label_masks(const int32_t* masks, LabelMasks form, int64_t labels, int height, int width, int target_height,
                    int target_width);

// How the network input was made from the original image, as far as results need it. `has_ratio` is the case of validation, where
// the loader knows gain (its height ratio) and padding; else both follow from the sizes (spec 4.2).
struct ResultGeometry {
  int network_height = 0, network_width = 0;
  int original_height = 0, original_width = 0;
  bool has_ratio = false;
  double gain = 1;
  int pad_left = 0, pad_top = 0;
};

// Boxes in original-image pixels, clipped to it; float32 as in the original.
BoxXyxy scale_box(const BoxXyxy& box, const ResultGeometry& geometry);
// Left, top, width, height of a box with the roundings of the original's JSON (spec 9.6).
BoxLtwh to_ltwh(const BoxXyxy& box);

// A mask at another size, as an 8-bit image is resized (spec 14.1).
class MaskResize {
 public:
  MaskResize(int in_height, int in_width, int height, int width);

  // Where set pixels of `from` can set others.
  PixelBox reach(const PixelBox& from) const;
  // Its words are in `memory` unless the size is the same.
  MaskView operator()(const MaskView& in, std::vector<uint32_t>& memory) const;

 private:
  int height_, width_;
  std::optional<BitResize> bits_;  // unless the size is the same
};

// The mask of the JSON file from a native one at network-input size: its padding cut off (spec 9.6), then resized to the original size.
// geometry.has_ratio is required.
class JsonMask {
 public:
  explicit JsonMask(const ResultGeometry& geometry);

  // Of the pixels of a native mask those that are not padding.
  PixelBox shown(const PixelBox& native) const;
  // Where such pixels can set others of the original image.
  PixelBox reach(const PixelBox& shown) const;
  Rle operator()(const MaskView& native) const;

 private:
  PixelBox frame_;
  MaskResize resize_;
};

// A network-size mask in the original image: `inner` is the part of the network input that the image fills, the rest is padding and
// is cut off; then resized as an 8-bit image (spec 14.1), but only where set pixels can arise.
MaskPatch to_original(const MaskView& mask, const PixelBox& inner, int original_height, int original_width);

// Outer contours of a mask, each a ring in mask pixels; the last component in raster order first.
std::vector<Polygon> mask_rings(const MaskView& mask);
// The original's single polygon of a mask: its rings joined (spec 4.4, strategy "all"). Empty for an empty mask.
Polygon mask_polygon(const MaskView& mask);
// Points of a mask of mask_height x mask_width, which letterboxes the original image, to original pixels, clipped (spec 4.4).
void scale_polygon(std::span<Point> polygon, int mask_height, int mask_width, int original_height, int original_width);

}  // namespace tessera
