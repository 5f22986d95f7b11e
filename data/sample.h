// What the data side hands to the model side: one Sample per image, collated into a Batch. No autograd, no device.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/image.h"
#include "data/pixel_plan.h"
#include "tensor/tensor.h"

namespace tessera {

// One object of one image after augmentation (spec 5.7).
struct Target {
  int32_t class_id = 0;
  std::array<float, 4> box{};  // centre x, centre y, width, height, divided by the width and height of the network input
};

// How an image got from its file into the network input; what is needed to map results back (spec 3.2, 3.3, 4.2).
struct ImageGeometry {
  int original_height = 0, original_width = 0;  // after EXIF orientation
  double ratio_height = 1, ratio_width = 1;     // resized / original
  int pad_left = 0, pad_top = 0;                // letterbox border in network-input pixels
};

struct Sample {
  int64_t index = 0;  // position in the data set
  std::string file;
  ImageGeometry geometry;
  int height = 0, width = 0;      // of the network input
  PixelBuffer pixels;             // height x width x 3, RGB; empty where there is a plan, or where they were written in place
  std::optional<PixelPlan> plan;  // the pixels are to be made on a device
  std::vector<Target> targets;    // in the order of the mask values (spec 5.6)
  int mask_height = 0, mask_width = 0;
  // Overlap form: one index map, value j + 1 where targets[j] is visible, 0 elsewhere (mask_height x mask_width).
  // Separate form: one 0/1 plane for each target, one after the other.
  bool overlap = true;
  std::vector<int32_t> masks;
};

// Samples of equal network-input size, in order.
struct Batch {
  Tensor images;                        // u8 (N, H, W, 3), RGB; undefined where they are still to be made:
  std::optional<PackedTiles> tiles;     // from these (augment_images)
  std::vector<Target> targets;          // of all images, image by image
  std::vector<int32_t> target_image;    // image of each target
  bool overlap = true;
  Tensor masks;                         // i32: overlap (N, mh, mw), separate (targets, mh, mw)
  std::vector<std::string> files;
  std::vector<int64_t> indices;
  std::vector<ImageGeometry> geometry;
  Size resized;  // the images are resized to that for the network; empty: they are not

  int64_t size() const { return tiles ? int64_t(tiles->items.size()) : images.defined() ? images.size(0) : 0; }
  int64_t height() const { return tiles ? tiles->height : images.size(1); }  // of the images
  int64_t width() const { return tiles ? tiles->width : images.size(2); }
  int64_t input_height() const { return resized.height > 0 ? resized.height : height(); }  // of the network
  int64_t input_width() const { return resized.height > 0 ? resized.width : width(); }
};

}  // namespace tessera
