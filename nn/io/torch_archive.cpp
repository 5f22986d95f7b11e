// The container of a .pt file: <name>/data.pkl, <name>/data/<key> and a few notes, in a zip archive.
#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "nn/io/torch_pt.h"
#include "tensor/base/file.h"

namespace tessera {

namespace {

constexpr std::string_view kDownloadAgain = "the file is damaged or was cut short: copy or download it again";
constexpr size_t kStorageAlignment = 64;

[[noreturn]] void fail(const std::string& file, const std::string& message, std::string_view hint = kDownloadAgain) {
  throw Error(ErrorCode::kData, message, {file}, std::string(hint));
}

// Says what a file that is no zip archive is instead.
void check_magic(std::span<const std::byte> bytes, const std::string& file) {
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 64));
  if (head.starts_with(std::string_view("PK\x03\x04", 4))) return;
  if (head.empty()) fail(file, "the file is empty");
  // torch.save wrote this number first before 1.6: 0x1950a86a20f9469cfc6c.
  if (head.find("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") != std::string_view::npos || head.starts_with("\x80\x02"))
    fail(file, "is in the form that PyTorch wrote before version 1.6",
         "load and save it once with a newer PyTorch: torch.save(torch.load(f), f)");
  if (head.starts_with("version https://git-lfs"))
    fail(file, "is a Git LFS pointer, not the file itself", "fetch the content with git lfs pull");
  if (head.starts_with("<")) fail(file, "is a web page, not a model", "the download went wrong: fetch the file itself");
  fail(file, "is not a PyTorch file (no zip archive)", "expected a .pt file written by torch.save, or a .safetensors file");
}

StorageBytes read_entry(archive* reader, int64_t expected, size_t limit, const std::string& file, const std::string& name) {
  StorageBytes bytes;
  std::string grown;  // only for entries that do not state their size
  const auto allocate = [](size_t n) {
    return std::shared_ptr<std::byte>(new (std::align_val_t(kStorageAlignment)) std::byte[std::max<size_t>(n, 1)],
                                      [](std::byte* p) { ::operator delete[](p, std::align_val_t(kStorageAlignment)); });
  };
  const auto read_some = [&](void* to, size_t n) {
    const la_ssize_t got = archive_read_data(reader, to, n);
    if (got < 0)
      fail(file,
           fmt::format("archive entry '{}': {}", name, archive_error_string(reader) ? archive_error_string(reader) : "unreadable"));
    return size_t(got);
  };
  if (expected >= 0) {
    if (size_t(expected) > limit)
      fail(file, fmt::format("archive entry '{}' unpacks to {} bytes, out of proportion to the file", name, expected));
    bytes.data = allocate(size_t(expected));
    while (bytes.size < size_t(expected)) {
      const size_t got = read_some(bytes.data.get() + bytes.size, size_t(expected) - bytes.size);
      if (got == 0) fail(file, fmt::format("archive entry '{}' ends after {} of {} bytes", name, bytes.size, expected));
      bytes.size += got;
    }
    // The checksum is verified when the end is seen.
    std::byte beyond;
    if (read_some(&beyond, 1) != 0) fail(file, fmt::format("archive entry '{}' is longer than it states", name));
    return bytes;
  }
  char block[1 << 16];
  for (size_t got = read_some(block, sizeof block); got > 0; got = read_some(block, sizeof block)) {
    grown.append(block, got);
    if (grown.size() > limit)
      fail(file, fmt::format("archive entry '{}' unpacks to more than {} bytes, out of proportion to the file", name, limit));
  }
  bytes.data = allocate(grown.size());
  bytes.size = grown.size();
  std::memcpy(bytes.data.get(), grown.data(), grown.size());
  return bytes;
}

}  // namespace

TorchArchive read_torch_archive(const std::filesystem::path& path) {
  TorchArchive result;
  result.file = path.string();
  const std::string& file = result.file;
  const auto mapped = MappedFile::open(path);
  const auto bytes = mapped->bytes();
  check_magic(bytes, file);

  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  archive_read_support_format_zip_seekable(reader.get());
  if (archive_read_open_memory(reader.get(), bytes.data(), bytes.size()) != ARCHIVE_OK)
    fail(file, fmt::format("not a readable zip archive ({})",
                           archive_error_string(reader.get()) ? archive_error_string(reader.get()) : "unknown"));

  // PyTorch stores without compression; some room for archives that were packed anew.
  size_t room = std::max<size_t>(64 * bytes.size(), size_t(1) << 20);
  bool have_pickle = false, script = false;
  archive_entry* entry = nullptr;
  int status = ARCHIVE_OK;
  while ((status = archive_read_next_header(reader.get(), &entry)) == ARCHIVE_OK || status == ARCHIVE_WARN) {
    const char* raw_name = archive_entry_pathname(entry);
    const std::string full = raw_name != nullptr ? raw_name : "";
    const size_t slash = full.find('/');
    const std::string name = slash == std::string::npos ? full : full.substr(slash + 1);
    script |= name == "constants.pkl" || name.starts_with("code/");
    const bool storage = name.starts_with("data/");
    if (!storage && name != "data.pkl" && name != "byteorder") continue;
    StorageBytes content =
        read_entry(reader.get(), archive_entry_size_is_set(entry) ? archive_entry_size(entry) : -1, room, file, full);
    room -= content.size;
    if (storage) {
      if (!result.storages.emplace(name.substr(5), std::move(content)).second)
        fail(file, fmt::format("archive entry '{}' occurs twice", full));
      continue;
    }
    std::string text(reinterpret_cast<const char*>(content.data.get()), content.size);
    if (name == "byteorder" && text != "little")
      fail(file, fmt::format("was written with byte order '{}'", text), "save it on a little-endian machine");
    if (name != "data.pkl") continue;
    if (have_pickle) fail(file, "holds two data.pkl");
    have_pickle = true;
    result.pickle = std::move(text);
  }
  if (status != ARCHIVE_EOF)
    fail(file, fmt::format("damaged zip archive ({})",
                           archive_error_string(reader.get()) ? archive_error_string(reader.get()) : "unknown"));
  if (script)
    fail(file, "is a TorchScript program, not a checkpoint", "use the .pt file that training wrote, or its weights as safetensors");
  if (!have_pickle) fail(file, "is a zip archive without data.pkl", "expected a .pt file written by torch.save");
  return result;
}

}  // namespace tessera
