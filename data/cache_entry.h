// One decoded image as a file of the disk cache: a header that says what the pixels were made from, the path of the image file, the
// pixels, and one checksum over all of it. Whatever is not exactly that is told from it, so a file that a crash, a full disk or
// anybody else has left in its place is never used.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/image_cache.h"

namespace tessera {

// What decides the pixels of a decoded image. Two of the times are kept because the first can be set back: an archive that is
// unpacked over an older one may leave size and time of modification as they were.
struct ImageKey {
  std::string file;  // absolute
  int64_t bytes = 0, modified_ns = 0, changed_ns = 0;
  Size within;  // what it is fitted into
  bool operator==(const ImageKey&) const = default;
};

std::string absolute_file(const std::string& file);

// Of the image file as it is now; empty when it cannot be looked at, or is no file.
std::optional<ImageKey> image_key(const std::string& file, Size within);

// Names the entry, whatever the image holds: a changed image replaces its own. Equal names of two images are told apart by the
// header.
uint64_t entry_name(const std::string& absolute, Size within);

// Bytes of the entry of a decoded image of `size`.
int64_t entry_bytes(const std::string& absolute, Size size);

// What stands before the pixels.
std::string entry_head(const ImageKey& key, const DecodedImage& decoded);

enum class EntryState {
  kGood,
  kStale,    // made from another state of the image, of another image, or by a program whose pixels differ
  kDamaged,  // short, too long, or with another checksum
};

// Reads the entry from an open file. `out` is the image when it is good.
EntryState read_entry(int descriptor, const ImageKey& key, DecodedImage& out);

}  // namespace tessera
