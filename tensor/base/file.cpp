#include "tensor/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include "tensor/base/check.h"
#include "tensor/base/descriptor.h"

namespace tessera {

namespace {

constexpr std::string_view kTemporarySuffix = ".tessera-tmp";

std::string remedy(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return "the disk or the quota is full: free some space or choose another folder; a file that was there before is intact";
    case EACCES:
    case EPERM: return "no permission: check the owner and mode of the file and its folder";
    case EROFS: return "the file system is read-only: choose another folder";
    case ENOENT: return "check the path; its folder must exist";
    case ENOTDIR: return "a part of the path is a file, not a folder";
    case EISDIR: return "the path is a folder; name a file";
    case EFBIG:
      return "larger than the file system or the limit of this process (ulimit -f) allows; a file that was there before is intact";
    case ENAMETOOLONG: return "choose a shorter name";
    case EMFILE:
    case ENFILE: return "too many open files: raise the limit with ulimit -n";
    case EIO: return "the storage device reports a failure";
    case ELOOP: return "a link leads back to itself: name the file itself";
    default: return "check the path and what it names";
  }
}

// Opens for reading and tells the size; folders are refused (open() alone accepts them).
int open_to_read(const std::filesystem::path& path, FileKind kind, size_t& size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (kind == FileKind::kRegular ? O_NONBLOCK : 0));
  if (fd < 0) throw_file_error("read", path, errno);
  struct stat info {};
  const int failed = ::fstat(fd, &info) != 0 ? errno : S_ISDIR(info.st_mode) ? EISDIR : 0;
  const bool refused = failed == 0 && kind == FileKind::kRegular && !S_ISREG(info.st_mode);
  if (failed != 0 || refused) ::close(fd);
  if (failed != 0) throw_file_error("read", path, failed);
  if (refused)
    throw Error(ErrorCode::kData, "this is a pipe or a device, not a file", {path.string()}, "store the content in a file first");
  size = size_t(std::max<off_t>(info.st_size, 0));
  return fd;
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const auto folder = path.parent_path();
  return folder.empty() ? std::filesystem::path(".") : folder;
}

// Of a name that leaves no room for more within the 255 bytes of a file system, the beginning.
std::string temporary_prefix(const std::filesystem::path& path) {
  constexpr size_t kMostBytes = 200;
  std::string name = path.filename().string();
  if (name.size() > kMostBytes) {
    size_t end = kMostBytes;
    while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0) == 0x80) --end;  // whole characters only
    name.resize(end);
  }
  return fmt::format(".{}.", name);
}

// Removes temporaries of `path` whose writer is gone: nobody holds their lock any more.
void remove_leftovers(const std::filesystem::path& path) {
  const auto folder = folder_of(path);
  const std::string prefix = temporary_prefix(path);
  std::error_code ignored;
  for (std::filesystem::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(kTemporarySuffix)) continue;
    // Between them stands "<process>-<number>"; anything else belongs to a file with a longer name.
    const size_t first = name.find_first_not_of("0123456789-", prefix.size());
    if (first != name.size() - kTemporarySuffix.size()) continue;
    const Descriptor leftover(::open(it->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (leftover.get() >= 0 && ::flock(leftover.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(it->path().c_str());
  }
}

}  // namespace

void throw_file_error(std::string_view action, const std::filesystem::path& path, int error_number) {
  const bool absent = action == "read" && (error_number == ENOENT || error_number == ENOTDIR || error_number == EISDIR);
  throw Error(absent ? ErrorCode::kData : ErrorCode::kIo,
              fmt::format("cannot {}: {}", action, std::generic_category().message(error_number)), {path.string()},
              absent && error_number == ENOENT ? "check the path" : remedy(error_number));
}

int open_regular_file(const std::filesystem::path& path, size_t& size) { return open_to_read(path, FileKind::kRegular, size); }

void read_file(const std::filesystem::path& path, std::string& content, size_t max_bytes, FileKind kind) {
  size_t size = 0;
  const Descriptor file(open_to_read(path, kind, size));
  const auto check_length = [&](size_t length) {
    if (length > max_bytes)
      throw Error(ErrorCode::kData, fmt::format("longer than {} bytes", max_bytes), {path.string()},
                  "this does not look like the expected file");
  };
  check_length(size);
  size_t have = 0;
  content.resize(std::max<size_t>(size, 1) + 1);  // one more than expected, so that the end is seen without growing
  while (true) {
    const ssize_t n = ::read(file.get(), content.data() + have, content.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error("read", path, errno);
    if (n == 0) break;
    have += size_t(n);
    check_length(have);
    if (have == content.size()) content.resize(2 * have);
  }
  content.resize(have);
}

std::string read_file(const std::filesystem::path& path, size_t max_bytes, FileKind kind) {
  std::string content;
  read_file(path, content, max_bytes, kind);
  return content;
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  size_t size = 0;
  const Descriptor file(open_regular_file(path, size));
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile(nullptr, 0));
  void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
  if (p == MAP_FAILED) throw_file_error("read", path, errno);
  return std::shared_ptr<const MappedFile>(new MappedFile(static_cast<std::byte*>(p), size));
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(data_, size_);
}

int write_all(int descriptor, std::span<const std::span<const std::byte>> pieces) {
  std::array<iovec, 256> vectors;
  size_t next = 0;  // first piece that is not fully written
  size_t done = 0;  // bytes of it that are
  while (next < pieces.size()) {
    size_t count = 0;
    for (size_t i = next; i < pieces.size() && count < vectors.size(); ++i, ++count) {
      const auto rest = pieces[i].subspan(i == next ? done : 0);
      vectors[count] = {const_cast<std::byte*>(rest.data()), rest.size()};
    }
    ssize_t n = ::writev(descriptor, vectors.data(), int(count));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    done += size_t(n);
    while (next < pieces.size() && done >= pieces[next].size()) done -= pieces[next++].size();
  }
  return 0;
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code ignored;
  if (std::filesystem::is_symlink(path_, ignored)) {
    const auto target = std::filesystem::weakly_canonical(path_, ignored);
    if (!ignored) path_ = target;
  }
  struct stat info {};
  const bool exists = ::stat(path_.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) throw_file_error("write", path_, EISDIR);
  if (exists && ::access(path_.c_str(), W_OK) != 0) throw_file_error("write", path_, errno);
  if (exists && !S_ISREG(info.st_mode)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) throw_file_error("write", path_, errno);
    return;
  }
  remove_leftovers(path_);
  static std::atomic<unsigned> counter{0};
  while (true) {
    temporary_ = folder_of(path_) / fmt::format("{}{}-{}{}", temporary_prefix(path_), ::getpid(), counter++, kTemporarySuffix);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno == EEXIST) continue;
    if (descriptor_ < 0) throw_file_error("write", path_, errno);
    ::flock(descriptor_, LOCK_EX);
    // Another program may have taken the new file for a leftover before it was locked; then it has no name any more.
    struct stat made {};
    if (::fstat(descriptor_, &made) == 0 && made.st_nlink > 0) break;
    ::close(descriptor_);
  }
  if (exists && ::fchmod(descriptor_, info.st_mode & 07777) != 0) errno = 0;  // best effort: some file systems have no modes
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  ::close(descriptor_);
}

void AtomicFile::write(std::span<const std::byte> bytes) { write(std::span(&bytes, 1)); }

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::write(std::span<const std::span<const std::byte>> pieces) {
  TESSERA_CHECK(descriptor_ >= 0, "AtomicFile: write after commit");
  if (const int failed = write_all(descriptor_, pieces)) throw_file_error("write", path_, failed);
}

void AtomicFile::rewrite(size_t position, std::string_view text) {
  TESSERA_CHECK(descriptor_ >= 0, "AtomicFile: rewrite after commit");
  while (!text.empty()) {
    const ssize_t n = ::pwrite(descriptor_, text.data(), text.size(), off_t(position));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error("write", path_, errno);
    text.remove_prefix(size_t(n));
    position += size_t(n);
  }
}

void AtomicFile::commit() {
  TESSERA_CHECK(descriptor_ >= 0, "AtomicFile: committed twice");
  if (!temporary_.empty()) {
    if (::fsync(descriptor_) != 0) throw_file_error("write", path_, errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_file_error("write", path_, errno);
    temporary_.clear();
    const Descriptor folder(::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // EINVAL: this file system cannot sync folders; a folder may also be writable without being readable.
    if (folder.get() >= 0 && ::fsync(folder.get()) != 0 && errno != EINVAL) throw_file_error("write", path_, errno);
  }
  const int fd = std::exchange(descriptor_, -1);
  if (::close(fd) != 0 && errno != EINTR) throw_file_error("write", path_, errno);
}

void write_file_atomic(const std::filesystem::path& path, std::string_view bytes) {
  write_file_atomic(path, [&](AtomicFile& file) { file.write(bytes); });
}

void write_file_atomic(const std::filesystem::path& path, const std::function<void(AtomicFile&)>& body) {
  AtomicFile file(path);
  body(file);
  file.commit();
}

}  // namespace tessera
