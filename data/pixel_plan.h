// A training sample whose pixels are made elsewhere: everything that was drawn for them, and the decoded images that they come
// from.
//
// On the host stay: reading and decoding files, the resize to the long side of imgsz, the letterbox of samples without a mosaic,
// copy-paste and mixup (such samples come finished, as do all where no colour may change), and all of labels, polygons and masks. On
// the device: the mosaic's canvas, the warp, the change of colours, mirroring.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "data/image.h"
#include "data/image_cache.h"
#include "tensor/augment.h"

namespace tessera {

struct PixelPlan {
  AugmentItem item;                    // begin of the tiles: set by pack_tiles
  std::array<DecodedPtr, 4> sources;   // of the tiles; empty: `canvas` is the one tile
  Image canvas;
};

// The tiles of a batch, one after the other, and the items that point into them. The plans give up their sources.
struct PackedTiles {
  std::vector<AugmentItem> items;
  PixelBuffer bytes;
  int64_t height = 0, width = 0;  // of each image that is made
};
PackedTiles pack_tiles(std::span<PixelPlan> plans, int64_t height, int64_t width);

}  // namespace tessera
