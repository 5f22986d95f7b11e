#include "data/cache_entry.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>
#include <type_traits>

#include "data/transforms/letterbox.h"
#include "tensor/base/checksum.h"

namespace tessera {

namespace {

constexpr char kMagic[8] = {'T', 'S', 'R', 'P', 'I', 'C', '\r', '\n'};
// Raised with a change of this layout, and of pixels that decoder_mark() does not see (other formats than JPEG).
constexpr uint32_t kVersion = 2;

struct Header {
  char magic[8];
  uint32_t version, decoder;
  int64_t bytes, modified_ns, changed_ns;
  int32_t within_height, within_width;
  // Up to here the key says what it must be.
  int32_t height, width, original_height, original_width;
  uint32_t path_bytes;
  uint32_t checksum;  // of the header before it, the path and the pixels
};
static_assert(sizeof(Header) == 72 && std::has_unique_object_representations_v<Header>);

// Another JPEG library or another resize may give other pixels: what they make of one image is part of every key.
uint32_t decoder_mark() {
  static const uint32_t mark = [] {
    Image image(45, 61);
    uint32_t state = 1;
    for (uint8_t& v : image.pixels) v = uint8_t((state = state * 1664525 + 1013904223) >> 24);
    const Image decoded = decode_image(encode_jpeg(image, 75), "the image of decoder_mark()");
    const Image resized = resize_bilinear(decoded, 32, 43);
    return crc32c(std::as_bytes(std::span(resized.pixels)), crc32c(std::as_bytes(std::span(decoded.pixels))));
  }();
  return mark;
}

Header header_of(const ImageKey& key) {
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.version = kVersion;
  h.decoder = decoder_mark();
  h.bytes = key.bytes;
  h.modified_ns = key.modified_ns;
  h.changed_ns = key.changed_ns;
  h.within_height = key.within.height;
  h.within_width = key.within.width;
  h.path_bytes = uint32_t(key.file.size());
  return h;
}

uint32_t checksum(const Header& header, std::span<const char> path, std::span<const uint8_t> pixels) {
  const uint32_t head = crc32c(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, checksum)));
  return crc32c(std::as_bytes(pixels), crc32c(std::as_bytes(path), head));
}

bool read_exactly(int descriptor, void* to, size_t bytes, size_t position) {
  while (bytes > 0) {
    const ssize_t n = ::pread(descriptor, to, bytes, off_t(position));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to = static_cast<char*>(to) + n;
    bytes -= size_t(n);
    position += size_t(n);
  }
  return true;
}

int64_t nanoseconds(const timespec& t) { return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec; }

}  // namespace

std::string absolute_file(const std::string& file) {
  std::error_code ignored;
  const std::filesystem::path absolute = std::filesystem::absolute(file, ignored);
  return ignored ? file : absolute.lexically_normal().string();
}

std::optional<ImageKey> image_key(const std::string& file, Size within) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return ImageKey{absolute_file(file), int64_t(info.st_size), nanoseconds(info.st_mtim), nanoseconds(info.st_ctim), within};
}

uint64_t entry_name(const std::string& absolute, Size within) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  const auto add = [&](std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) hash = (hash ^ uint64_t(b)) * 1099511628211u;
  };
  add(std::as_bytes(std::span(absolute)));
  const int32_t size[] = {within.height, within.width};
  add(std::as_bytes(std::span(size)));
  return hash;
}

int64_t entry_bytes(const std::string& absolute, Size size) {
  return int64_t(sizeof(Header) + absolute.size()) + int64_t(size.height) * size.width * 3;
}

std::string entry_head(const ImageKey& key, const DecodedImage& decoded) {
  Header h = header_of(key);
  h.height = decoded.image.height;
  h.width = decoded.image.width;
  h.original_height = decoded.original_height;
  h.original_width = decoded.original_width;
  h.checksum = checksum(h, key.file, decoded.image.pixels);
  std::string head(reinterpret_cast<const char*>(&h), sizeof h);
  return head += key.file;
}

EntryState read_entry(int descriptor, const ImageKey& key, DecodedImage& out) {
  struct stat info {};
  if (::fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < off_t(sizeof(Header)))
    return EntryState::kDamaged;
  Header h;
  if (!read_exactly(descriptor, &h, sizeof h, 0) || std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) return EntryState::kDamaged;
  const Header expected = header_of(key);
  if (std::memcmp(&h, &expected, offsetof(Header, height)) != 0 || h.path_bytes != expected.path_bytes) return EntryState::kStale;
  std::string path(key.file.size(), '\0');
  if (!read_exactly(descriptor, path.data(), path.size(), sizeof h)) return EntryState::kDamaged;
  if (path != key.file) return EntryState::kStale;
  // The length of the file bounds what is allocated.
  const auto side = [](int32_t n) { return n > 0 && n <= kMaxImageSide; };
  if (!side(h.height) || !side(h.width) || !side(h.original_height) || !side(h.original_width) ||
      info.st_size != off_t(entry_bytes(key.file, {h.height, h.width})) ||
      dataset_size({h.original_height, h.original_width}, key.within) != Size{h.height, h.width}) {
    return EntryState::kDamaged;
  }
  Image image(h.height, h.width);
  if (!read_exactly(descriptor, image.pixels.data(), image.pixels.size(), sizeof h + path.size())) return EntryState::kDamaged;
  if (checksum(h, path, image.pixels) != h.checksum) return EntryState::kDamaged;
  out = {std::move(image), h.original_height, h.original_width};
  return EntryState::kGood;
}

}  // namespace tessera
