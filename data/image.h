// Host images: 8-bit RGB in row-major (height, width, 3) order, read from and written to files, and resized as OpenCV would.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/uninitialized.h"

namespace tessera {

using PixelBuffer = std::vector<uint8_t, UninitializedAllocator<uint8_t>>;

struct Size {
  int height = 0, width = 0;
  bool operator==(const Size&) const = default;
};

struct Image {
  int height = 0, width = 0;
  PixelBuffer pixels;  // height x width x 3, RGB; a new image is not cleared

  Image() = default;
  Image(int h, int w) : height(h), width(w), pixels(size_t(h) * size_t(w) * 3) {}
  uint8_t* row(int y) { return pixels.data() + size_t(y) * size_t(width) * 3; }
  const uint8_t* row(int y) const { return pixels.data() + size_t(y) * size_t(width) * 3; }
  bool empty() const { return pixels.empty(); }
};

enum class ImageFormat { kUnknown, kJpeg, kPng, kBmp, kGif, kPnm, kPsd, kHdr, kWebp, kTiff, kHeic, kAvif };
std::string_view name_of(ImageFormat format);

// What the header says. height and width are those of the decoded image, that is after the EXIF orientation.
struct ImageInfo {
  ImageFormat format = ImageFormat::kUnknown;
  int height = 0, width = 0;
  int orientation = 1;  // EXIF tag 274: 1..8 (JPEG, and the eXIf chunk of PNG)
  int sample_bits = 8;  // of a value in a PNG or PNM, or in a PNG's palette; decoded they have 8
};

constexpr size_t kMaxImageBytes = size_t(2) << 30;  // of a file
constexpr int64_t kMaxImagePixels = int64_t(1) << 28;
constexpr int kMaxImageSide = 65500;  // what JPEG can hold

// The format by its first bytes, whatever the file is called.
ImageFormat sniff_format(std::span<const uint8_t> bytes);

// Header only, nothing is decoded. Errors as decode_image. `name` is the file named in messages.
ImageInfo probe_image(std::span<const uint8_t> bytes, const std::string& name);

// Decodes PNM, JPEG through libjpeg-turbo and PNG, BMP, GIF (first frame), PSD and HDR through stb_image, to three channels: grey
// is repeated, CMYK and YCCK are converted, alpha is dropped without blending, of 16 bits the upper 8 stay (all as OpenCV's
// IMREAD_COLOR). The EXIF orientation is applied. Error(kData) for an empty, cut, damaged or foreign file, and, before memory is
// taken, for more than kMaxImageSide pixels a side or kMaxImagePixels in all.
Image decode_image(std::span<const uint8_t> bytes, const std::string& name);
Image read_image(const std::filesystem::path& path);

enum class Chroma { kHalf, kFull };  // 4:2:0 and 4:4:4

// PNG, or JPEG of the given quality (1..100).
std::vector<uint8_t> encode_png(const Image& image);
std::vector<uint8_t> encode_jpeg(const Image& image, int quality = 95, Chroma chroma = Chroma::kHalf);
void write_png(const std::filesystem::path& path, const Image& image);  // atomically; Error(kIo) when the disk refuses

// Bilinear, bit for bit OpenCV's 8-bit INTER_LINEAR (spec 14.1); equal sizes copy, an exact halving of both sides averages 2 x 2.
// `channels` interleaved bytes a pixel, rows without gaps.
void resize_bilinear(const uint8_t* source, int source_height, int source_width, uint8_t* target, int target_height,
                     int target_width, int channels);
Image resize_bilinear(const Image& source, int height, int width);

// The eight EXIF orientations: turns a stored image upright (1 leaves it; 2..4 mirror and half turns; 5..8 exchange the sides).
Image apply_orientation(Image image, int orientation);

// Tag 274 of an EXIF block (TIFF header first, without "Exif\0\0"); 1 when absent or damaged.
int exif_orientation(std::span<const uint8_t> tiff);

namespace detail {
ImageInfo probe_jpeg(std::span<const uint8_t> bytes, const std::string& name);
Image decode_jpeg(std::span<const uint8_t> bytes, const std::string& name);
ImageInfo probe_pnm(std::span<const uint8_t> bytes, const std::string& name);
Image decode_pnm(std::span<const uint8_t> bytes, const std::string& name);
ImageInfo probe_stb(std::span<const uint8_t> bytes, const std::string& name);
Image decode_stb(std::span<const uint8_t> bytes, const std::string& name);
void check_image_size(int64_t height, int64_t width, const std::string& name);
}  // namespace detail

}  // namespace tessera
