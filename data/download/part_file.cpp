#include "data/download/part_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <vector>

#include "tensor/base/check.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"

namespace tessera {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

constexpr std::chrono::seconds kSyncInterval{5};
constexpr size_t kMaxNoteBytes = size_t(1) << 16;

fs::path with_suffix(fs::path path, const char* suffix) { return path += suffix; }

}  // namespace

PartFile::PartFile(const fs::path& goal, const std::string& url)
    : goal_(goal), part_(with_suffix(goal, ".part")), note_(with_suffix(goal, ".part.json")) {
  // No link is followed: in a folder that others may write to it could lead to a file that is to stay.
  descriptor_ = ::open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
  if (descriptor_ < 0) throw_file_error("write", part_, errno);
  try {
    const bool locked = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
    struct stat info {};
    if (::fstat(descriptor_, &info) != 0) throw_file_error("write", part_, errno);
    if (!S_ISREG(info.st_mode)) {
      throw Error(ErrorCode::kIo, "this is no regular file", {part_.string()}, "move it away, or choose another place");
    }
    if (!locked || info.st_nlink == 0) {  // without a name: just finished by the one who had the lock
      throw Error(ErrorCode::kUsage, "another process is writing this file", {part_.string()},
                  "wait for it, or choose another place with --to");
    }
    read_note(url);
    size_ = synced_ = std::min<int64_t>(synced_, info.st_size);
    read_prefix();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
  last_sync_ = std::chrono::steady_clock::now();
}

PartFile::~PartFile() {
  if (descriptor_ < 0) return;
  try {
    sync();
  } catch (const Error&) {  // a later run goes on from the sync before
  }
  struct stat info {};
  if (::fstat(descriptor_, &info) == 0 && info.st_size == 0) {  // not what came from another address, which may be wanted yet
    ::unlink(part_.c_str());
    ::unlink(note_.c_str());
  }
  ::close(descriptor_);
}

void PartFile::read_note(const std::string& url) {
  std::error_code ignored;
  if (!fs::exists(note_, ignored)) return;
  const Json note = Json::parse(read_file(note_, kMaxNoteBytes), nullptr, false);
  if (!note.is_object()) return;
  try {
    const auto whole = [&](const char* key) { return note.at(key).get_ref<const Json::number_integer_t&>(); };  // no fraction
    PartOrigin origin{note.at("url"), note.at("validator"), whole("total")};
    if (origin.url != url || (origin.validator.empty() && origin.total != whole("synced"))) return;
    synced_ = std::max<int64_t>(0, whole("synced"));
    origin_ = origin;
  } catch (const Json::exception&) {  // not our note: begin anew
  }
}

void PartFile::write_note() const {
  const Json note = {{"url", origin_.url}, {"validator", origin_.validator}, {"total", origin_.total}, {"synced", synced_}};
  write_file_atomic(note_, note.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void PartFile::read_prefix() {
  std::vector<std::byte> buffer(size_t(1) << 20);
  for (int64_t at = 0; at < size_;) {
    if (interrupt_requested()) throw Error(ErrorCode::kInterrupted, "interrupted", {part_.string()}, "start it again");
    const ssize_t n = ::pread(descriptor_, buffer.data(), size_t(std::min<int64_t>(size_ - at, int64_t(buffer.size()))), at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw_file_error("read", part_, n < 0 ? errno : EIO);
    sum_.update(std::span(buffer).first(size_t(n)));
    at += n;
  }
}

void PartFile::begin(const PartOrigin& origin) {
  // The old note must be gone before the old bytes are, and the new one is there before new bytes are.
  if (::unlink(note_.c_str()) != 0 && errno != ENOENT) throw_file_error("remove", note_, errno);
  if (::ftruncate(descriptor_, 0) != 0) throw_file_error("write", part_, errno);
  origin_ = origin;
  size_ = synced_ = 0;
  sum_ = Sha256();
  write_note();
  last_sync_ = std::chrono::steady_clock::now();
}

void PartFile::append(std::span<const std::byte> bytes) {
  for (std::span<const std::byte> rest = bytes; !rest.empty();) {
    const ssize_t n = ::pwrite(descriptor_, rest.data(), rest.size(), size_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error("write", part_, errno);
    sum_.update(rest.first(size_t(n)));
    size_ += n;
    rest = rest.subspan(size_t(n));
  }
  if (std::chrono::steady_clock::now() - last_sync_ >= kSyncInterval) sync();
}

void PartFile::sync() {
  last_sync_ = std::chrono::steady_clock::now();
  if (synced_ == size_) return;
  if (::fsync(descriptor_) != 0) throw_file_error("write", part_, errno);
  synced_ = size_;
  write_note();
}

void PartFile::commit() {
  if (::ftruncate(descriptor_, size_) != 0 || ::fsync(descriptor_) != 0) throw_file_error("write", part_, errno);
  if (::rename(part_.c_str(), goal_.c_str()) != 0) throw_file_error("write", goal_, errno);
  ::unlink(note_.c_str());
  const fs::path folder = goal_.has_parent_path() ? goal_.parent_path() : fs::path(".");
  if (const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);  // not every file system can; the file itself is safe
    ::close(fd);
  }
  ::close(descriptor_);
  descriptor_ = -1;
}

}  // namespace tessera
