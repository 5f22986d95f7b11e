// Masks: compressed text, counts and polygons. The first bytes are the size and the kind.
#include "data/rle.h"

#include <cstring>

#include "tests/fuzz/fuzz.h"

using namespace tessera;

namespace {

void use(const Rle& mask) {
  const int64_t area = rle_area(mask), pixels = int64_t(mask.height) * mask.width;
  fuzz::require(area >= 0 && area <= pixels, "an area is within the image");
  const Rle again = rle_from_string(rle_to_string(mask), mask.height, mask.width);
  fuzz::require(rle_area(again) == area, "text that is written is read as the same mask");
  RunList list;
  list.push(mask);
  list.push_string(rle_to_string(mask), mask.height, mask.width);
  fuzz::require(list.area(0) == area && list.area(1) == area, "a list of runs has the same area");
  fuzz::require(run_intersection(list.bounds(0), list.bounds(1)) == area, "a mask covers itself");
  rle_iou(std::span(&mask, 1), std::span(&again, 1), {});
  rle_union(std::array{mask, again});
  rle_box(mask);
  if (pixels > 1 << 16) return;
  std::vector<uint8_t> plane(static_cast<size_t>(pixels));
  rle_decode(mask, plane.data());
  fuzz::require(pixels == 0 || rle_area(rle_encode(plane.data(), mask.height, mask.width)) == area, "pixels are as many");
}

template <class T>
std::vector<T> numbers(std::string_view bytes) {
  std::vector<T> list(bytes.size() / sizeof(T));
  if (!list.empty()) std::memcpy(list.data(), bytes.data(), list.size() * sizeof(T));
  return list;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 5) return 0;
  const int64_t height = data[0] | data[1] << 8, width = data[2] | data[3] << 8;
  const int kind = data[4] % 4;
  const std::string_view rest = fuzz::text_of(data + 5, size - 5);
  if (height == 0 || width == 0) return 0;  // refused before
  try {
    switch (kind) {
      case 0: {
        rle_check_string(rest, height, width);
        use(rle_from_string(rest, height, width));
        break;
      }
      case 1: use(rle_from_counts(numbers<int64_t>(rest), height, width)); break;
      case 2: use(rle_from_polygon(numbers<double>(rest), height, width)); break;
      default: {
        std::vector<double> xy;
        for (const int16_t v : numbers<int16_t>(rest)) xy.push_back(double(v) / 8);
        use(rle_from_polygon(xy, height, width));
      }
    }
  } catch (const Error& e) {  // the file and a remedy are its reader's to name
    fuzz::require(e.code() == ErrorCode::kData, "the data are at fault");
  }
  return 0;
}
