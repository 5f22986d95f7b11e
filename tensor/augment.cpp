#include "tensor/augment.h"

#include <array>
#include <cstring>

#include "tensor/backend.h"
#include "tensor/base/check.h"

namespace tessera {

namespace {
AugmentKernel& slot(Device::Kind kind) {
  static std::array<AugmentKernel, 2> kernels{};
  return kernels.at(kind == Device::Kind::kCpu ? 0 : 1);
}

Tensor bytes_on(const void* p, size_t count, Device device) {
  const Tensor host = Tensor::empty({int64_t(count)}, DType::kU8);
  std::memcpy(host.raw(), p, count);
  return host.to(device);
}
}  // namespace

void set_augment_kernel(Device::Kind kind, AugmentKernel kernel) { slot(kind) = kernel; }
AugmentKernel augment_kernel(Device::Kind kind) { return slot(kind); }

void augment_images(std::span<const AugmentItem> items, std::span<const uint8_t> tiles, const Tensor& images) {
  const Device device = images.device();
  const int64_t height = images.size(1), width = images.size(2);
  TESSERA_CHECK(images.dtype() == DType::kU8 && images.contiguous().shares_storage(images) && images.size(3) == 3 &&
                    images.size(0) == int64_t(items.size()),
                "augment_images: {} items into {}", items.size(), describe(images));
  const AugmentKernel kernel = augment_kernel(device.kind);
  if (kernel == nullptr) throw Error(ErrorCode::kUsage, "pictures are not augmented on this device", {}, "use --augment cpu");
  for (const AugmentItem& item : items) {
    TESSERA_CHECK(item.tile_count >= 0 && item.tile_count <= 4, "augment_images: {} tiles", item.tile_count);
    for (int k = 0; k < item.tile_count; ++k) {
      const AugmentTile& t = item.tiles[k];
      TESSERA_CHECK(t.begin >= 0 && t.begin + int64_t(t.height) * t.width * 3 <= int64_t(tiles.size()),
                    "augment_images: a tile of {}x{} at byte {} of {}", t.height, t.width, t.begin, tiles.size());
    }
    TESSERA_CHECK(item.path != AugmentPath::kFinished ||
                      (item.tile_count == 1 && item.tiles[0].height == height && item.tiles[0].width == width),
                  "augment_images: a finished picture of another size than {}x{}", height, width);
  }
  const Tensor list = bytes_on(items.data(), items.size_bytes(), device), pixels = bytes_on(tiles.data(), tiles.size(), device);
  kernel(static_cast<const AugmentItem*>(list.raw()), static_cast<const uint8_t*>(pixels.raw()),
         {images.raw(), DType::kU8, images.size(0), height, width, 3, 3});
}

}  // namespace tessera
