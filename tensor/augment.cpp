#include "tensor/augment.h"

#include <array>

#include "tensor/base/check.h"

namespace tessera {

namespace {
AugmentKernel& slot(Device::Kind kind) {
  static std::array<AugmentKernel, 2> kernels{};
  return kernels.at(kind == Device::Kind::kCpu ? 0 : 1);
}
}  // namespace

void set_augment_kernel(Device::Kind kind, AugmentKernel kernel) { slot(kind) = kernel; }
AugmentKernel augment_kernel(Device::Kind kind) { return slot(kind); }

void check_items(std::span<const AugmentItem> items, int64_t bytes, int64_t height, int64_t width) {
  for (const AugmentItem& item : items) {
    TESSERA_CHECK(item.tile_count >= 0 && item.tile_count <= 4, "check_items: {} tiles", item.tile_count);
    for (int k = 0; k < item.tile_count; ++k) {
      const AugmentTile& t = item.tiles[k];
      TESSERA_CHECK(t.begin >= 0 && t.begin + int64_t(t.height) * t.width * 3 <= bytes, "check_items: a tile of {}x{} at byte {} of {}",
                    t.height, t.width, t.begin, bytes);
    }
    TESSERA_CHECK(item.path != AugmentPath::kFinished ||
                      (item.tile_count == 1 && item.tiles[0].height == height && item.tiles[0].width == width),
                  "check_items: a finished image of another size than {}x{}", height, width);
  }
}

void augment_images(const Tensor& items, const Tensor& tiles, const Tensor& images) {
  const Device device = images.device();
  TESSERA_CHECK(images.dtype() == DType::kU8 && images.is_dense() && images.rank() == 4 && images.size(3) == 3 &&
                    items.numel() == images.size(0) * int64_t(sizeof(AugmentItem)) && items.device() == device && tiles.device() == device,
                "augment_images: {} and {} into {}", describe(items), describe(tiles), describe(images));
  const AugmentKernel kernel = augment_kernel(device.kind);
  if (kernel == nullptr) throw Error(ErrorCode::kUsage, "images are not augmented on this device", {}, "use --augment cpu");
  kernel(static_cast<const AugmentItem*>(items.raw()), static_cast<const uint8_t*>(tiles.raw()),
         {images.raw(), DType::kU8, images.size(0), images.size(1), images.size(2), 3, 3});
}

}  // namespace tessera
