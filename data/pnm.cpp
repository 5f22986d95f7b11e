// PNM, grey (P5) and colour (P6), of 8 or 16 bits. Our own, for stb_image reads 16 bits in the wrong order and beyond its buffer. Values
// are not stretched from the largest that the header names: as in OpenCV.
#include <cstring>

#include "data/image.h"
#include "tensor/base/check.h"

namespace tessera {

namespace {

struct PnmHeader {
  int64_t width = 0, height = 0;
  int channels = 1, sample_bytes = 1;
  size_t end = 0;  // where the pixels begin
};

[[noreturn]] void refuse(const char* message, const std::string& name) {
  throw Error(ErrorCode::kData, message, {name}, "replace or remove the file");
}

bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Width, height and largest value, parted by white space and comments; one white space more before the pixels.
PnmHeader read_header(std::span<const uint8_t> b, const std::string& name) {
  size_t at = 2;
  int64_t numbers[3] = {};
  for (int64_t& number : numbers) {
    for (; at < b.size() && (is_space(b[at]) || b[at] == '#'); ++at) {
      if (b[at] != '#') continue;
      while (at + 1 < b.size() && b[at] != '\n' && b[at] != '\r') ++at;
    }
    int digits = 0;
    for (; at < b.size() && b[at] >= '0' && b[at] <= '9'; ++at, ++digits) {
      if (digits == 9) refuse("the header states a size beyond all bounds", name);
      number = 10 * number + (b[at] - '0');
    }
    if (digits == 0) refuse("the header of the image file is damaged or cut short", name);
  }
  if (numbers[2] < 1 || numbers[2] > 65535) refuse("the header states a largest value that is not within 1 to 65535", name);
  if (at == b.size() || !is_space(b[at])) refuse("the header of the image file is damaged or cut short", name);
  detail::check_image_size(numbers[1], numbers[0], name);
  return {numbers[0], numbers[1], b[1] == '6' ? 3 : 1, numbers[2] > 255 ? 2 : 1, at + 1};
}

}  // namespace

ImageInfo detail::probe_pnm(std::span<const uint8_t> bytes, const std::string& name) {
  const PnmHeader h = read_header(bytes, name);
  return {ImageFormat::kPnm, int(h.height), int(h.width), 1, 8 * h.sample_bytes};
}

Image detail::decode_pnm(std::span<const uint8_t> bytes, const std::string& name) {
  const PnmHeader h = read_header(bytes, name);
  const size_t pixels = size_t(h.width * h.height), step = size_t(h.channels * h.sample_bytes);
  if ((bytes.size() - h.end) / step < pixels) refuse("the image file is cut short", name);
  Image image(int(h.height), int(h.width));
  const uint8_t* from = bytes.data() + h.end;
  for (uint8_t* to = image.pixels.data(); to < image.pixels.data() + 3 * pixels; to += 3, from += step) {
    for (int c = 0; c < 3; ++c) to[c] = from[h.channels == 3 ? c * h.sample_bytes : 0];  // of 16 bits the first byte is the upper one
  }
  return image;
}

}  // namespace tessera
