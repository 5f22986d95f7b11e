#include "data/image.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <new>

#include "tensor/base/check.h"
#include "tensor/base/file.h"

namespace tessera {

namespace {

bool starts_with(std::span<const uint8_t> bytes, std::string_view magic, size_t at = 0) {
  return bytes.size() >= at + magic.size() && std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

bool can_decode(ImageFormat format) { return format > ImageFormat::kUnknown && format <= ImageFormat::kHdr; }

[[noreturn]] void throw_unreadable(std::span<const uint8_t> bytes, ImageFormat format, const std::string& name) {
  if (bytes.empty()) throw Error(ErrorCode::kData, "the image file is empty", {name}, "replace or remove it");
  if (format == ImageFormat::kUnknown)
    throw Error(ErrorCode::kData, "not an image in a known format", {name}, "JPEG, PNG, BMP, GIF, PNM, PSD and HDR can be read");
  throw Error(ErrorCode::kData, fmt::format("{} images cannot be read", name_of(format)), {name},
              "convert the file to JPEG or PNG");
}

}  // namespace

std::string_view name_of(ImageFormat format) {
  constexpr std::array<std::string_view, 12> kNames = {"unknown", "JPEG", "PNG",  "BMP",  "GIF",  "PNM",
                                                       "PSD",     "HDR",  "WebP", "TIFF", "HEIC", "AVIF"};
  return kNames[size_t(format)];
}

ImageFormat sniff_format(std::span<const uint8_t> b) {
  if (starts_with(b, "\xFF\xD8\xFF")) return ImageFormat::kJpeg;
  if (starts_with(b, "\x89PNG\r\n\x1A\n")) return ImageFormat::kPng;
  if (starts_with(b, "BM")) return ImageFormat::kBmp;
  if (starts_with(b, "GIF87a") || starts_with(b, "GIF89a")) return ImageFormat::kGif;
  if (starts_with(b, "P5") || starts_with(b, "P6")) return ImageFormat::kPnm;
  if (starts_with(b, "8BPS")) return ImageFormat::kPsd;
  if (starts_with(b, "#?RADIANCE") || starts_with(b, "#?RGBE")) return ImageFormat::kHdr;
  if (starts_with(b, "RIFF") && starts_with(b, "WEBP", 8)) return ImageFormat::kWebp;
  if (starts_with(b, std::string_view("II*\0", 4)) || starts_with(b, std::string_view("MM\0*", 4))) return ImageFormat::kTiff;
  if (starts_with(b, "ftypavif", 4) || starts_with(b, "ftypavis", 4)) return ImageFormat::kAvif;
  if (starts_with(b, "ftyphei", 4) || starts_with(b, "ftyphev", 4) || starts_with(b, "ftypmif1", 4)) return ImageFormat::kHeic;
  return ImageFormat::kUnknown;
}

void detail::check_image_size(int64_t height, int64_t width, const std::string& name) {
  if (height <= 0 || width <= 0)
    throw Error(ErrorCode::kData, fmt::format("the header gives a size of {} x {} pixels", width, height), {name},
                "replace or remove the file");
  if (height > kMaxImageSide || width > kMaxImageSide || height * width > kMaxImagePixels)
    throw Error(ErrorCode::kData,
                fmt::format("the image has {} x {} pixels; at most {} a side and {} in all are read", width, height, kMaxImageSide,
                            kMaxImagePixels),
                {name}, "scale it down or cut it into tiles");
}

ImageInfo probe_image(std::span<const uint8_t> bytes, const std::string& name) {
  const ImageFormat format = sniff_format(bytes);
  if (!can_decode(format)) throw_unreadable(bytes, format, name);
  ImageInfo info = format == ImageFormat::kJpeg  ? detail::probe_jpeg(bytes, name)
                   : format == ImageFormat::kPnm ? detail::probe_pnm(bytes, name)
                                                 : detail::probe_stb(bytes, name);
  info.format = format;
  if (info.orientation >= 5) std::swap(info.height, info.width);
  return info;
}

Image decode_image(std::span<const uint8_t> bytes, const std::string& name) {
  const ImageFormat format = sniff_format(bytes);
  if (!can_decode(format)) throw_unreadable(bytes, format, name);
  try {
    return format == ImageFormat::kJpeg  ? detail::decode_jpeg(bytes, name)
           : format == ImageFormat::kPnm ? detail::decode_pnm(bytes, name)
                                         : detail::decode_stb(bytes, name);
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::kMemory, "there is not enough memory to decode this image", {name},
                "scale it down, or free some memory");
  }
}

Image read_image(const std::filesystem::path& path) {
  constexpr size_t kKept = size_t(4) << 20;
  thread_local std::string bytes;
  read_file(path, bytes, kMaxImageBytes, FileKind::kRegular);
  Image image = decode_image({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, path.string());
  if (bytes.capacity() > kKept) bytes = {};
  return image;
}

void write_png(const std::filesystem::path& path, const Image& image) {
  const std::vector<uint8_t> bytes = encode_png(image);
  write_file_atomic(path, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

// ---- orientation -----------------------------------------------------------------------------------------------------

Image apply_orientation(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool transpose = orientation >= 5;
  const int h = image.height, w = image.width;
  Image out(transpose ? w : h, transpose ? h : w);
  // Source pixel of an upright pixel (y, x): mirrored in the source's x and/or y after an optional exchange of the axes.
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  for (int y = 0; y < out.height; ++y) {
    uint8_t* to = out.row(y);
    for (int x = 0; x < out.width; ++x, to += 3) {
      int sy = transpose ? x : y, sx = transpose ? y : x;
      if (flip_x) sx = w - 1 - sx;
      if (flip_y) sy = h - 1 - sy;
      std::memcpy(to, image.row(sy) + size_t(sx) * 3, 3);
    }
  }
  return out;
}

int exif_orientation(std::span<const uint8_t> t) {
  if (t.size() < 8 || (t[0] != 'I' && t[0] != 'M') || t[0] != t[1]) return 1;
  const bool little = t[0] == 'I';
  const auto u16 = [&](size_t at) { return little ? t[at] | t[at + 1] << 8 : t[at] << 8 | t[at + 1]; };
  const auto u32 = [&](size_t at) {
    return little ? uint32_t(u16(at)) | uint32_t(u16(at + 2)) << 16 : uint32_t(u16(at)) << 16 | uint32_t(u16(at + 2));
  };
  const size_t directory = u32(4);
  if (directory + 2 > t.size()) return 1;
  const int entries = u16(directory);
  for (int i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + size_t(i) * 12;
    if (entry + 12 > t.size()) return 1;
    if (u16(entry) != 274) continue;
    const int value = u16(entry + 8);  // 16 bits in the entry itself, whatever type it states: as OpenCV reads it
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

}  // namespace tessera
