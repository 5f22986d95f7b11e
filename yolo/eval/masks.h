// Masks from prototypes and coefficients (spec 4.3), and what happens to them afterwards: comparison with the truth (9.2), the form
// of the JSON file (9.6), polygons (4.4), boxes in the original image (4.2). A mask is computed inside its box only and handed on
// as a patch or as run lengths, so memory does not grow with detections times pixels.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/polygon.h"
#include "data/rle.h"
#include "yolo/eval/nms.h"

namespace tessera {

// height x width x channels, channels last, `pitch` floats from pixel to pixel; a quarter of the network input in each direction.
struct Prototypes {
  const float* data = nullptr;
  int height = 0, width = 0;
  int channels = 32;
  int64_t pitch = 32;
};

// The part of a mask that can hold set pixels, as bytes 0/1; everything outside of `where` is zero.
struct MaskPatch {
  int height = 0, width = 0;  // of the whole mask
  PixelBox where;
  std::vector<uint8_t> pixels;  // of `where`, row by row

  bool any() const;
  void paint(uint8_t* mask) const;  // writes the whole mask, height * width bytes
  Rle rle() const { return rle_encode(pixels.data(), where, height, width); }
};

enum class MaskSize {
  kPrototype,  // that of the prototypes: comparison with the truth during training
  kNetwork,    // cropped at prototype size, then enlarged: what predict shows. Reaches up to 6 pixels beyond the box
  kNative,     // enlarged first, then cropped exactly: retina masks, JSON and final validation
};

// Logits L = sum over channels of coefficient * prototype; a mask is where L > 0 after cropping to the box. `box` is in
// network-input pixels for kPrototype and kNetwork. Enlargement is bilinear without aligned corners (spec 14.3).
MaskPatch process_mask(const Prototypes& prototypes, const float* coefficients, const BoxXyxy& box, int network_height,
                       int network_width, MaskSize size);
// kNative for a target of height x width with the box in target pixels. A target of another shape than the prototypes is taken from
// their middle: what is left and right, or above and below, is letterbox padding.
MaskPatch process_mask_native(const Prototypes& prototypes, const float* coefficients, const BoxXyxy& box, int height, int width);

// All detections of an image, on all threads; kNative is meant at network-input size (spec 9.2).
RunList detection_masks(const Prototypes& prototypes, const Detections& detections, int network_height, int network_width,
                        MaskSize size);

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

// Masks of the JSON file: native at network-input size, padding cut off, resized as 8-bit image to the original size
// (spec 9.6, 14.1). `detections` still have their network-input boxes. geometry.has_ratio is required.
std::vector<Rle> json_masks(const Prototypes& prototypes, const Detections& detections, const ResultGeometry& geometry);

// A network-size mask in the original image: `inner` is the part of the network input that the image fills, the rest is padding and
// is cut off; then resized as an 8-bit image (spec 14.1), but only where set pixels can arise.
MaskPatch to_original(const MaskPatch& mask, const PixelBox& inner, int original_height, int original_width);

// Outer contours of a mask, each a ring in mask pixels; the last component in raster order first.
std::vector<Polygon> mask_rings(const MaskPatch& mask);
// The original's single polygon of a mask: its rings joined (spec 4.4, strategy "all"). Empty for an empty mask.
Polygon mask_polygon(const MaskPatch& mask);
// Points of a mask of mask_height x mask_width, which letterboxes the original image, to original pixels, clipped (spec 4.4).
void scale_polygon(std::span<Point> polygon, int mask_height, int mask_width, int original_height, int original_width);

}  // namespace tessera
