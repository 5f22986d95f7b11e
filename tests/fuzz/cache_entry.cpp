// An entry of the disk cache. The first byte says what the rest is: a whole file; sizes and pixels, to which head and checksum are
// made as if they fitted together; changes to a good file.
#include "data/cache_entry.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "data/transforms/letterbox.h"
#include "tensor/base/descriptor.h"
#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace {

constexpr Size kWithin = {24, 24};

std::string file_of(const ImageKey& key, const DecodedImage& decoded) {
  return entry_head(key, decoded) + std::string(decoded.image.pixels.begin(), decoded.image.pixels.end());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const ImageKey key{"/images/a.jpg", 1000, 2, 3, kWithin};
  const std::string_view rest = fuzz::text_of(data + 1, size - 1);
  std::string bytes(rest);
  std::optional<bool> good;  // where it is known
  if (data[0] % 3 == 1) {
    std::array<int32_t, 4> sides{};
    if (rest.size() < sizeof sides) return 0;
    std::memcpy(sides.data(), rest.data(), sizeof sides);
    DecodedImage decoded;
    decoded.image.height = sides[0], decoded.image.width = sides[1];
    decoded.original_height = sides[2], decoded.original_width = sides[3];
    decoded.image.pixels.assign(rest.begin() + sizeof sides, rest.end());
    bytes = file_of(key, decoded);
    const bool sound = std::all_of(sides.begin(), sides.end(), [](int32_t n) { return n > 0 && n <= kMaxImageSide; });
    good = sound && int64_t(decoded.image.pixels.size()) == int64_t(sides[0]) * sides[1] * 3 &&
           dataset_size({sides[2], sides[3]}, kWithin) == Size{sides[0], sides[1]};
  } else if (data[0] % 3 == 2) {
    DecodedImage decoded{Image(3, 5), 3, 5};
    for (size_t i = 0; i < decoded.image.pixels.size(); ++i) decoded.image.pixels[i] = uint8_t(i * 7);
    const Size fitted = dataset_size({3, 5}, kWithin);
    if (fitted != Size{3, 5}) decoded.image = resize_bilinear(decoded.image, fitted.height, fitted.width);
    const std::string whole = file_of(key, decoded);
    bytes = whole;
    for (size_t i = 0; i + 2 < rest.size(); i += 3) {
      const size_t at = uint8_t(rest[i]) | size_t(uint8_t(rest[i + 1])) << 8;
      if (at < bytes.size()) bytes[at] = char(bytes[at] ^ rest[i + 2]);
    }
    good = bytes == whole;
  }
  const std::string file = fuzz::file_with("entry", bytes);
  const Descriptor entry(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  DecodedImage read;
  const EntryState state = read_entry(entry.get(), key, read);
  fuzz::require(!good || (state == EntryState::kGood) == *good, "an entry is good when all of it is as it was written");
  if (state == EntryState::kGood) fuzz::require(file_of(key, read) == bytes, "what is read is what was written");
  return 0;
}
