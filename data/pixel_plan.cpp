#include "data/pixel_plan.h"

#include <cstring>

namespace tessera {

namespace {
const Image& tile_image(const PixelPlan& plan, int tile) {
  return plan.sources[size_t(tile)] ? plan.sources[size_t(tile)]->image : plan.canvas;
}
}  // namespace

PackedTiles pack_tiles(std::span<PixelPlan> plans, int64_t height, int64_t width) {
  PackedTiles out;
  out.height = height;
  out.width = width;
  size_t bytes = 0;
  for (PixelPlan& plan : plans) {
    for (int k = 0; k < plan.item.tile_count; ++k) {
      plan.item.tiles[k].begin = int64_t(bytes);
      bytes += tile_image(plan, k).pixels.size();
    }
  }
  out.bytes.resize(bytes);
  for (PixelPlan& plan : plans) {
    for (int k = 0; k < plan.item.tile_count; ++k) {
      const Image& image = tile_image(plan, k);
      std::memcpy(out.bytes.data() + plan.item.tiles[k].begin, image.pixels.data(), image.pixels.size());
    }
    out.items.push_back(plan.item);
    plan.sources = {};
    plan.canvas = {};
  }
  return out;
}

}  // namespace tessera
