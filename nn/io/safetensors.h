// safetensors: the native file format. 8 bytes little-endian header length, a JSON header {"name": {"dtype", "shape",
// "data_offsets"}, ..., "__metadata__": {"key": "text"}}, then the values without gaps
// (https://huggingface.co/docs/safetensors). Nothing in such a file can run.
//
// Note [Checksums]: files written here hold, under the metadata key "crc32c", eight hexadecimal digits for each CRC-32C: of the header
// (its length included, these digits as zeros), then of each entry's values in the order of the file. Other readers pass over the key,
// and a file without it is read as it is. Bits that flip on a disk are so found by reading, not by a model that is a little worse.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "nn/io/state_dict.h"

namespace tessera {

struct Safetensors {
  StateDict tensors;                            // in the order in which the values lie in the file
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

enum class FileMemory {
  kMapped,  // tensors lie in the mapped file: no copy, pages are read on first use; writing to them does not reach the file
  kCopied,  // tensors own their memory and the file may be changed afterwards
};

// Reads all entries (F64 F32 BF16 F16 I64 I32 U8 BOOL, rank <= 5). Everything in the header is checked before it is used:
// Error(kData) with file, entry and remedy for a damaged, hostile or unsupported file, or one that does not match its checksums. Entries that lie unaligned for their type
// are copied under kMapped too.
Safetensors read_safetensors(const std::filesystem::path& path, FileMemory memory = FileMemory::kMapped);

// The same for a file that lies in memory; `owner` keeps `bytes` alive, `name` stands for the file in messages. With a null owner
// the tensors are copied.
Safetensors parse_safetensors(std::span<std::byte> bytes, const std::shared_ptr<const void>& owner, const std::string& name);

// Replaces `path` atomically (tensor/base/file.h). Values go from the tensors' memory to the file without a copy in between when
// they are dense. They are laid out by element size, largest first, and by insertion inside one size, so that every entry is
// aligned; the values begin at a multiple of 64 bytes. Tensors of a device are fetched one by one.
void write_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace tessera
