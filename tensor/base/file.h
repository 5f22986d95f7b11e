// Reading files whole or mapped, and replacing a file so that it is never seen half written: a crash, a kill or a full disk leaves
// either the old content or the new.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

// Throws what `error_number` (errno) means for `path`: Error(kIo) with the system's text and a remedy (disk full, permission, ...);
// Error(kData) when a file to be read is not there. `action` completes "cannot ...", e.g. "read" or "write".
[[noreturn]] void throw_file_error(std::string_view action, const std::filesystem::path& path, int error_number);

// kAny: pipes and devices too, which may keep the reader waiting (--cfg /dev/stdin). kRegular: what a data set holds; a pipe in its
// folder is an error, not a wait without end.
enum class FileKind { kAny, kRegular };

// The whole file. Error as throw_file_error; Error(kData) when it is longer than `max_bytes` or of another kind.
std::string read_file(const std::filesystem::path& path, size_t max_bytes = size_t(1) << 32, FileKind kind = FileKind::kAny);
// Into a string whose memory is used again.
void read_file(const std::filesystem::path& path, std::string& content, size_t max_bytes = size_t(1) << 32,
               FileKind kind = FileKind::kAny);
// Opens a regular file for reading, without ever waiting; the caller closes. Errors as read_file.
int open_regular_file(const std::filesystem::path& path, size_t& size);

// A file in memory, pages loaded on first use. Private: writing to the memory changes a copy, never the file. Replacing the file by
// rename (as AtomicFile does) keeps the mapping whole; truncating it in place while mapped ends the program with SIGBUS.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(std::byte* data, size_t size) : data_(data), size_(size) {}
  std::byte* data_;
  size_t size_;
};

// Pieces of memory one after the other, without joining them first; 0, or errno of what stopped it.
int write_all(int descriptor, std::span<const std::span<const std::byte>> pieces);

// Writes a temporary file beside `path` and moves it there in commit(): write, fsync, rename, fsync of the folder. Without a commit
// (an exception, a full disk) the temporary is removed and the old file stays as it was. The temporary of a killed program is
// removed by the next write to the same path; a living writer holds a lock on its own and keeps it.
// A symbolic link is followed; permissions of an existing file are kept; devices and pipes are written directly.
// Every method throws as throw_file_error.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void write(std::span<const std::span<const std::byte>> pieces);
  // Over what was written there before; not for pipes.
  void rewrite(size_t position, std::string_view text);
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty: `path_` itself is written
  int descriptor_ = -1;
};

// Replaces the file by `bytes`, or by what `body` writes.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes);
void write_file_atomic(const std::filesystem::path& path, const std::function<void(AtomicFile&)>& body);

}  // namespace tessera
