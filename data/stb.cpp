// PNG, BMP, GIF, PSD and HDR through stb_image; PNG writing through stb_image_write. The one file that holds their code.
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <optional>

#include "data/image.h"
#include "tensor/base/check.h"
#include "tensor/base/checksum.h"

namespace {

// stb inflates whatever a PNG holds, up to 4 GiB of what two megabytes can unpack to; so none of its blocks may be larger than what
// the stated size needs.
struct DecoderMemory {
  size_t largest = std::numeric_limits<size_t>::max();
  bool exceeded = false;
  bool refused = false;  // by the system: the file is not to blame

  bool allows(size_t bytes) {
    exceeded |= bytes > largest;
    return bytes <= largest;
  }
  void* given(void* block) {
    refused |= block == nullptr;
    return block;
  }
};
thread_local DecoderMemory decoder_memory;

void* decoder_malloc(size_t bytes) { return decoder_memory.allows(bytes) ? decoder_memory.given(std::malloc(bytes)) : nullptr; }
void* decoder_realloc(void* p, size_t bytes) {
  return decoder_memory.allows(bytes) ? decoder_memory.given(std::realloc(p, bytes)) : nullptr;
}

}  // namespace

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_NO_STDIO
#define STBI_NO_JPEG
#define STBI_NO_PIC
#define STBI_NO_PNM
#define STBI_NO_TGA
#define STBI_MALLOC(bytes) decoder_malloc(bytes)
#define STBI_REALLOC(p, bytes) decoder_realloc(p, bytes)
#define STBI_FREE(p) std::free(p)
#include <stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>
#pragma GCC diagnostic pop

namespace tessera {

namespace {

uint32_t big_endian(const uint8_t* p) { return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3]; }

uint32_t little_endian(const uint8_t* p) { return uint32_t(p[3]) << 24 | uint32_t(p[2]) << 16 | uint32_t(p[1]) << 8 | p[0]; }

constexpr uint8_t kPaletteType = 3;  // of a PNG's pixels: places in a palette

struct PngChunk {
  std::span<const uint8_t> named;  // name and data: what the checksum is of
  size_t begin, end;               // in the file, with length and checksum
  bool is(const char* name) const { return std::memcmp(named.data(), name, 4) == 0; }
  std::span<const uint8_t> data() const { return named.subspan(4); }
};

// The chunk that begins at `at`, or nothing where the file ends within it.
std::optional<PngChunk> png_chunk(std::span<const uint8_t> b, size_t at) {
  if (at + 12 > b.size()) return std::nullopt;
  const size_t length = big_endian(b.data() + at);
  if (length > b.size() - at - 12) return std::nullopt;
  return PngChunk{b.subspan(at + 4, 4 + length), at, at + 12 + length};
}
constexpr size_t kFirstChunk = 8;

// Whether the checksums of a PNG's header, palette and pixels hold. stb passes over them, and pixels with a flipped bit inflate to
// other pixels. Of chunks that may be left out (their name begins with a small letter) none is compared, as in libpng.
bool png_sums_hold(std::span<const uint8_t> b) {
  size_t end = kFirstChunk;
  for (auto chunk = png_chunk(b, end); chunk; chunk = png_chunk(b, end)) {
    end = chunk->end;
    if (chunk->is("IEND")) return true;
    const bool critical = (chunk->named[0] & 0x20) == 0;
    if (critical && crc32(std::as_bytes(chunk->named)) != big_endian(b.data() + end - 4)) return false;
  }
  return end + 12 > b.size();
}

// The PNG with a palette of as many colours as its pixels can name, or nothing where it is so. stb reads colours that are not there
// from memory that it has not set; black, as in libpng.
std::vector<uint8_t> with_whole_palette(std::span<const uint8_t> b) {
  if (sniff_format(b) != ImageFormat::kPng || b.size() < 26 || b[25] != kPaletteType || b[24] > 8) return {};
  const size_t whole = size_t(3) << b[24];
  for (auto chunk = png_chunk(b, kFirstChunk); chunk; chunk = png_chunk(b, chunk->end)) {
    if (!chunk->is("PLTE")) continue;
    if (chunk->data().size() >= whole || chunk->data().size() % 3 != 0) return {};
    const auto checksum = b.begin() + std::ptrdiff_t(chunk->end) - 4;  // stays the old one, which stb does not read
    std::vector<uint8_t> out(b.begin(), checksum);
    out.resize(chunk->begin + 8 + whole);
    for (size_t i = 0; i < 4; ++i) out[chunk->begin + i] = uint8_t(whole >> (24 - 8 * i));
    out.insert(out.end(), checksum, b.end());
    return out;
  }
  return {};
}

// Orientation from the eXIf chunk of a PNG, 1 for anything else.
int png_orientation(std::span<const uint8_t> b) {
  if (sniff_format(b) != ImageFormat::kPng) return 1;
  for (auto chunk = png_chunk(b, kFirstChunk); chunk; chunk = png_chunk(b, chunk->end)) {
    if (chunk->is("eXIf")) return exif_orientation(chunk->data());
  }
  return 1;
}

// By the header, whose next byte says whether these are places in a palette, whose values always have 8.
int png_sample_bits(std::span<const uint8_t> b) {
  return sniff_format(b) == ImageFormat::kPng && b.size() >= 26 && b[25] != kPaletteType ? b[24] : 8;
}

// Bytes of a BMP by its header: stb takes what is missing as black. The padding of the last row may be missing.
size_t stated_bmp_size(std::span<const uint8_t> b, int64_t height, int64_t width) {
  constexpr uint32_t kCoreHeader = 12;  // of OS/2
  const size_t bits_at = little_endian(b.data() + 14) == kCoreHeader ? 24 : 28;
  const size_t bits = size_t(width) * size_t(b[bits_at] | b[bits_at + 1] << 8);
  return little_endian(b.data() + 10) + size_t(height - 1) * ((bits + 31) / 32 * 4) + (bits + 7) / 8;
}

// Whether a GIF has all blocks of its first frame; stb takes what is missing as background.
bool has_first_frame(std::span<const uint8_t> b) {
  const auto table = [](uint8_t flags) { return (flags & 0x80) != 0 ? size_t(3) << ((flags & 7) + 1) : 0; };
  constexpr uint8_t kImage = 0x2C, kExtension = 0x21;
  for (size_t at = 13 + table(b[10]); at < b.size();) {
    const uint8_t kind = b[at];
    if (kind == kImage) {
      if (b.size() - at < 10) return false;
      at += 10 + table(b[at + 9]) + 1;  // descriptor, colours, first width of a code
    } else if (kind == kExtension) {
      at += 2;
    } else {
      return true;  // the end, or what stb refuses
    }
    while (at < b.size() && b[at] != 0) at += 1 + size_t(b[at]);
    if (at >= b.size()) return false;
    if (kind == kImage) return true;
    ++at;
  }
  return false;
}

// Bytes of a PSD by its header and, where rows are packed, by the table of their lengths: stb takes what is missing as black.
size_t stated_psd_size(std::span<const uint8_t> b) {
  const auto number = [&](size_t place) { return size_t(b[place]) << 8 | b[place + 1]; };
  size_t at = 26;
  for (int section = 0; section < 3; ++section) {  // palette, resources, layers
    if (b.size() < at + 4) return at + 4;
    at += 4 + big_endian(b.data() + at);
  }
  if (b.size() < at + 2) return at + 2;
  const size_t rows = number(12) * big_endian(b.data() + 14);  // of all channels
  const bool packed = number(at) != 0;
  at += 2;
  if (!packed) return at + rows * big_endian(b.data() + 18) * number(22) / 8;
  const size_t table = at;
  at += 2 * rows;
  if (b.size() < at) return at;
  for (size_t row = 0; row < rows; ++row) at += number(table + 2 * row);
  return at;
}

// Whether an HDR has all of its pixels. Where the bytes of packed rows end stb reads zeros, runs of no length, and waits for the
// rest of the row for ever. Rows that it refuses are left to it.
bool has_all_rows(std::span<const uint8_t> b, int64_t height, int64_t width) {
  size_t at = 0;
  const auto line = [&] {  // false: an empty one
    const size_t begin = at;
    while (at < b.size() && b[at] != '\n') ++at;
    const bool text = at > begin && b[begin] != 0;
    at += at < b.size();
    return text;
  };
  while (line()) {
  }
  line();  // the sizes
  const size_t flat = size_t(4 * height * width);
  if (width < 8 || width >= 32768) return b.size() - at >= flat;
  for (int64_t row = 0; row < height; ++row) {
    if (b.size() - at < 4) return false;
    if (b[at] != 2 || b[at + 1] != 2 || b[at + 2] >= 128) return b.size() - at >= flat;  // stb begins anew with plain pixels here
    if ((b[at + 2] << 8 | b[at + 3]) != width) return true;
    at += 4;
    for (int component = 0; component < 4; ++component) {
      for (int64_t left = width; left > 0;) {
        if (at == b.size()) return false;
        const bool repeated = b[at] > 128;
        const int64_t count = repeated ? b[at] - 128 : b[at];
        const size_t bytes = repeated ? 2 : 1 + size_t(count);
        if (count > left) return true;
        if (b.size() - at < bytes) return false;
        at += bytes, left -= count;
      }
    }
  }
  return true;
}

// Holds the decoder's blocks to what an image of this size can need, while it lives.
class MemoryLimit {
 public:
  MemoryLimit(const ImageInfo& info, size_t file) {
    constexpr size_t kBytesAPixel = 32, kRoom = size_t(1) << 16;  // 16 bits of four channels, interlaced, in a buffer that doubles
    decoder_memory = {kBytesAPixel * size_t(info.height) * size_t(info.width) + 2 * file + kRoom};
  }
  ~MemoryLimit() { decoder_memory = {}; }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
};

[[noreturn]] void fail(const std::string& name) {
  if (decoder_memory.refused) throw std::bad_alloc();
  if (decoder_memory.exceeded)
    throw Error(ErrorCode::kData, "the image file unpacks to far more than its size in pixels", {name}, "replace or remove the file");
  const char* reason = stbi_failure_reason();
  throw Error(ErrorCode::kData,
              fmt::format("the image file is damaged or cut short ({})", reason != nullptr ? reason : "unknown reason"), {name},
              "replace or remove the file");
}

}  // namespace

ImageInfo detail::probe_stb(std::span<const uint8_t> bytes, const std::string& name) {
  if (sniff_format(bytes) == ImageFormat::kPng && bytes.size() >= 24)  // a clearer message than stb's for giants
    check_image_size(big_endian(bytes.data() + 20), big_endian(bytes.data() + 16), name);
  int width = 0, height = 0, channels = 0;
  if (!stbi_info_from_memory(bytes.data(), int(std::min<size_t>(bytes.size(), INT32_MAX)), &width, &height, &channels)) fail(name);
  // Rows from the top are stated by a negative height, which stb hands on from a BMP's header.
  if (sniff_format(bytes) == ImageFormat::kBmp && height < 0 && height >= -kMaxImageSide) height = -height;
  check_image_size(height, width, name);
  return {ImageFormat::kUnknown, height, width, png_orientation(bytes), png_sample_bits(bytes)};
}

Image detail::decode_stb(std::span<const uint8_t> bytes, const std::string& name) {
  if (bytes.size() > INT32_MAX) throw Error(ErrorCode::kData, "the image file is larger than 2 GiB", {name}, "scale it down");
  const ImageInfo info = probe_stb(bytes, name);
  const ImageFormat format = sniff_format(bytes);
  const bool cut = (format == ImageFormat::kPsd && bytes.size() < stated_psd_size(bytes)) ||
                   (format == ImageFormat::kBmp && bytes.size() < stated_bmp_size(bytes, info.height, info.width)) ||
                   (format == ImageFormat::kGif && !has_first_frame(bytes)) ||
                   (format == ImageFormat::kHdr && !has_all_rows(bytes, info.height, info.width));
  if (cut) throw Error(ErrorCode::kData, "the image file is cut short", {name}, "replace or remove the file");
  const std::vector<uint8_t> repaired = with_whole_palette(bytes);
  const std::span<const uint8_t> source = repaired.empty() ? bytes : std::span<const uint8_t>(repaired);
  const MemoryLimit limit(info, bytes.size());
  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(source.data(), int(source.size()), &width, &height, &channels, 3), stbi_image_free);
  if (!pixels) fail(name);
  if (height != info.height || width != info.width) fail(name);  // a second header
  if (format == ImageFormat::kPng && !png_sums_hold(bytes))
    throw Error(ErrorCode::kData, "the image file is damaged (a checksum does not hold)", {name}, "replace or remove the file");
  Image image(height, width);
  std::memcpy(image.pixels.data(), pixels.get(), image.pixels.size());
  return apply_orientation(std::move(image), info.orientation);
}

std::vector<uint8_t> encode_png(const Image& image) {
  TESSERA_CHECK(!image.empty(), "encode_png: empty image");
  std::vector<uint8_t> bytes;
  const auto append = [](void* context, void* data, int size) {
    auto* out = static_cast<std::vector<uint8_t>*>(context);
    out->insert(out->end(), static_cast<uint8_t*>(data), static_cast<uint8_t*>(data) + size);
  };
  if (!stbi_write_png_to_func(append, &bytes, image.width, image.height, 3, image.pixels.data(), image.width * 3))
    throw Error(ErrorCode::kMemory, "PNG encoding failed", {}, "the image may be too large for memory");
  return bytes;
}

}  // namespace tessera
