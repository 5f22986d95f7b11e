// Images of every kind that is read, and an EXIF block by itself.
#include "data/image.h"

#include "tests/fuzz/fuzz.h"

using namespace tessera;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  const int turned = exif_orientation(bytes);
  fuzz::require(turned >= 1 && turned <= 8, "an orientation is 1 to 8");
  ImageInfo info;
  if (!fuzz::takes_or_refuses("a.jpg", [&] { info = probe_image(bytes, "a.jpg"); })) {
    Image image;
    fuzz::require(!fuzz::takes_or_refuses("a.jpg", [&] { image = decode_image(bytes, "a.jpg"); }),
                  "what has no header has no pixels");
    return 0;
  }
  fuzz::require(info.height > 0 && info.width > 0 && info.orientation >= 1 && info.orientation <= 8, "a header states a size");
  constexpr int64_t kQuick = int64_t(1) << 22;  // pixels; more of them are no other code
  if (int64_t(info.height) * info.width > kQuick) return 0;
  fuzz::takes_or_refuses("a.jpg", [&] {
    const Image image = decode_image(bytes, "a.jpg");
    fuzz::require(image.height == info.height && image.width == info.width, "the size is that of the header");
    fuzz::require(image.pixels.size() == size_t(image.height) * size_t(image.width) * 3, "three bytes a pixel");
  });
  return 0;
}
