#include "data/cache_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <ctime>
#include <memory>
#include <system_error>
#include <thread>

#include "tensor/base/check.h"
#include "tensor/base/env.h"
#include "tensor/base/file.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kBlock = 4096, kHour = 3600, kDay = 24 * kHour;
// Of a temporary: written in milliseconds, an older one beside other processes has no writer any more.
constexpr int64_t kTemporaryLasts = kHour / 6;
constexpr const char* kIncoming = "incoming";
constexpr std::string_view kSuffix = ".rgb";
constexpr size_t kFolderDigits = 2, kDigits = 16;

// What a file takes. One with holes may be as long as numbers go, and is to be added to others.
constexpr int64_t kMostBytes = int64_t(1) << 42;
int64_t cost(int64_t bytes) { return (std::min(bytes, kMostBytes) + kBlock - 1) / kBlock * kBlock; }

std::string folder_of(uint64_t name) { return fmt::format("{:02x}", name >> 56); }
std::string file_of(uint64_t name) { return fmt::format("{:02x}/{:014x}{}", name >> 56, name & (~uint64_t(0) >> 8), kSuffix); }

std::optional<uint64_t> name_of_file(std::string_view folder, std::string_view file) {
  if (folder.size() != kFolderDigits || file.size() != kDigits - kFolderDigits + kSuffix.size() || !file.ends_with(kSuffix))
    return {};
  const std::string digits = fmt::format("{}{}", folder, file.substr(0, kDigits - kFolderDigits));
  uint64_t name = 0;
  const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), name, 16);
  const bool whole = failed == std::errc() && end == digits.data() + digits.size();
  return whole && file_of(name) == fmt::format("{}/{}", folder, file) ? std::optional(name) : std::nullopt;
}

// Calls `use(name)` for each file of a folder below `parent`; of none where it cannot be read.
template <class Use>
void for_each_file(int parent, const char* folder, Use use) {
  const int fd = ::openat(parent, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(fd), ::closedir);
  if (!entries) {
    ::close(fd);
    return;
  }
  while (const dirent* const entry = ::readdir(entries.get())) {
    struct stat info {};
    if (::fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode)) use(entry->d_name, info);
  }
}

// Like mkdir -p, for this user alone: the images may be private.
void make_folder(const fs::path& path) {
  std::error_code ignored;
  if (path.empty() || fs::is_directory(path, ignored)) return;
  make_folder(path.parent_path());
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) throw_file_error("make this folder", path, errno);
}

bool refused_to_write(int error_number) {
  return error_number == EACCES || error_number == EPERM || error_number == EROFS || error_number == ENOSPC ||
         error_number == EDQUOT;
}

}  // namespace

fs::path user_cache_folder(std::string_view name) {
  const auto cache = env("XDG_CACHE_HOME");
  if (cache && fs::path(*cache).is_absolute()) return fs::path(*cache) / "tessera" / name;
  const auto home = env("HOME");
  return home && fs::path(*home).is_absolute() ? fs::path(*home) / ".cache/tessera" / name : fs::path();
}

struct CacheFolder::File {
  uint64_t name;
  int64_t bytes, used;  // in whole blocks; seconds
  bool wanted;
};

// Of usage_, among the threads of this process and among processes. Not held when another one has it for too long: it may have been
// stopped.
class CacheFolder::Lock {
 public:
  Lock(CacheFolder& owner, std::chrono::milliseconds at_most) : threads_(owner.mutex_), descriptor_(owner.usage_->get()) {
    const auto end = std::chrono::steady_clock::now() + at_most;
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      error_ = errno;
      if ((error_ != EWOULDBLOCK && error_ != EINTR) || std::chrono::steady_clock::now() > end) {
        descriptor_ = -1;
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  ~Lock() {
    if (held()) ::flock(descriptor_, LOCK_UN);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  bool held() const { return descriptor_ >= 0; }
  int error() const { return error_; }

 private:
  std::lock_guard<std::mutex> threads_;
  int descriptor_, error_ = 0;
};

CacheFolder::CacheFolder(fs::path folder, std::optional<int64_t> budget, std::vector<Wanted> wanted)
    : path_(std::move(folder)), wanted_(std::move(wanted)) {
  const auto by_name = [](const Wanted& a, const Wanted& b) { return a.name < b.name; };
  std::sort(wanted_.begin(), wanted_.end(), by_name);
  wanted_.erase(std::unique(wanted_.begin(), wanted_.end(), [](const Wanted& a, const Wanted& b) { return a.name == b.name; }),
                wanted_.end());
  make_folder(path_);
  folder_.emplace(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder_->get() < 0) throw_file_error("read", path_, errno);
  open_to_write();

  std::optional<Lock> lock;
  bool alone = false;
  if (refusal_.empty()) {
    constexpr std::chrono::seconds kCounting(60);  // of another process that opens the folder
    lock.emplace(*this, kCounting);
    if (!lock->held()) {
      refusal_ = lock->error() == EWOULDBLOCK ? "another process has locked it" : std::generic_category().message(lock->error());
      lock.reset();
    } else {
      alone = ::flock(users_->get(), LOCK_EX | LOCK_NB) == 0;
    }
  }
  int64_t incoming = 0;
  std::vector<File> files = list(alone, incoming);
  state_.bytes = incoming;
  for (const File& f : files) state_.bytes += f.bytes;
  state_.files = int64_t(files.size());
  for (const Wanted& w : wanted_) state_.missing_bytes += cost(w.bytes);
  for (const File& f : files) {
    if (!f.wanted) continue;
    ++state_.wanted_files;
    state_.wanted_bytes += f.bytes;
  }
  state_.missing_bytes = std::max<int64_t>(0, state_.missing_bytes - state_.wanted_bytes);
  state_.budget = budget ? *budget : (free_bytes() + state_.bytes) / 2;
  if (!lock) return;
  make_room(files, alone);
  set_used(state_.bytes);
  ::flock(users_->get(), LOCK_SH | LOCK_NB);  // nobody has it alone now: that takes the lock that is held here
}

// The files that say who uses how much; refusal_ where they cannot be written.
void CacheFolder::open_to_write() {
  constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  const auto refuse = [&](int error_number) {
    refusal_ = std::generic_category().message(error_number);
    if (!refused_to_write(error_number)) throw_file_error("write", path_, error_number);
  };
  users_.emplace(::openat(folder_->get(), "users", kFlags, 0666));
  if (users_->get() < 0) return refuse(errno);
  usage_.emplace(::openat(folder_->get(), "usage", kFlags, 0666));
  if (usage_->get() < 0) return refuse(errno);
  if (::mkdirat(folder_->get(), kIncoming, 0777) != 0 && errno != EEXIST) return refuse(errno);
  // Backups pass over a folder with this file (bford.info/cachedir).
  const Descriptor tag(::openat(folder_->get(), "CACHEDIR.TAG", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666));
  constexpr std::string_view kTag =
      "Signature: 8a477f597d28d172789f06886806bc55\n# Images decoded by tessera; may be removed at any time.\n";
  if (tag.get() >= 0 && ::write(tag.get(), kTag.data(), kTag.size()) < 0) return refuse(errno);
}

std::vector<CacheFolder::File> CacheFolder::list(bool alone, int64_t& incoming_bytes) const {
  const int64_t now = ::time(nullptr);
  // These first: one that gets its name meanwhile is counted twice, never left out.
  for_each_file(folder_->get(), kIncoming, [&](const char* name, const struct stat& info) {
    const bool left = alone || (usage_ && refusal_.empty() && now - info.st_mtim.tv_sec > kTemporaryLasts);
    if (!left || ::unlinkat(folder_->get(), fmt::format("{}/{}", kIncoming, name).c_str(), 0) != 0)
      incoming_bytes += cost(info.st_size);
  });
  std::vector<File> files;
  for (uint64_t first = 0; first < 256; ++first) {
    const std::string folder = folder_of(first << 56);
    for_each_file(folder_->get(), folder.c_str(), [&](const char* file, const struct stat& info) {
      const auto name = name_of_file(folder, file);
      if (!name) return;
      const auto at =
          std::lower_bound(wanted_.begin(), wanted_.end(), *name, [](const Wanted& w, uint64_t n) { return w.name < n; });
      files.push_back({*name, cost(info.st_size), info.st_mtim.tv_sec, at != wanted_.end() && at->name == *name});
    });
  }
  return files;
}

// Files that are not wanted go first, those without use for the longest time before others.
void CacheFolder::make_room(std::vector<File>& files, bool alone) {
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) {
    return a.wanted != b.wanted ? b.wanted : a.used != b.used ? a.used < b.used : a.name < b.name;
  });
  const int64_t now = ::time(nullptr);
  for (const File& f : files) {
    const int64_t excess = state_.bytes - state_.budget + (f.wanted ? 0 : state_.missing_bytes);
    if (excess <= 0) break;
    if (!alone && now - f.used < kDay) continue;  // another training may use it
    if (::unlinkat(folder_->get(), file_of(f.name).c_str(), 0) != 0) continue;
    state_.bytes -= f.bytes;
    --state_.files;
    ++state_.removed;
    if (!f.wanted) continue;
    --state_.wanted_files;
    state_.wanted_bytes -= f.bytes;
    state_.missing_bytes += f.bytes;
  }
}

int64_t CacheFolder::free_bytes() const {
  struct statvfs info {};
  return ::fstatvfs(folder_->get(), &info) == 0 ? int64_t(info.f_bavail) * int64_t(info.f_frsize) : 0;
}

int64_t CacheFolder::used() const {
  int64_t bytes = 0;
  constexpr int64_t kMost = int64_t(1) << 62;  // whatever stands there, more can be added
  return ::pread(usage_->get(), &bytes, sizeof bytes, 0) == sizeof bytes ? std::clamp<int64_t>(bytes, 0, kMost) : 0;
}

void CacheFolder::set_used(int64_t bytes) {
  if (::pwrite(usage_->get(), &bytes, sizeof bytes, 0) != sizeof bytes) refusal_ = std::generic_category().message(errno);
}

void CacheFolder::give_back(int64_t bytes) {
  const Lock lock(*this, std::chrono::seconds(1));
  if (lock.held()) set_used(used() - bytes);  // else they count as taken until the next opening
}

int CacheFolder::open(uint64_t name) const {
  return ::openat(folder_->get(), file_of(name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

void CacheFolder::touch(int descriptor) {
  struct stat info {};
  if (::fstat(descriptor, &info) != 0 || ::time(nullptr) - info.st_mtim.tv_sec < kHour) return;
  const std::array<timespec, 2> times = {timespec{0, UTIME_OMIT}, timespec{0, UTIME_NOW}};
  ::futimens(descriptor, times.data());  // of another user's file, or on a disk that is read only, it stays
}

int CacheFolder::create_temporary(std::string& name, int64_t bytes) {
  for (;;) {
    name = fmt::format("{}/{}-{}", kIncoming, ::getpid(), temporaries_++);
    const int fd = ::openat(folder_->get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0 && errno == EEXIST) continue;  // of another machine's process
    if (fd < 0) throw_file_error("write", path_, errno);
    if (::ftruncate(fd, off_t(bytes)) == 0) return fd;
    const int failed = errno;
    ::close(fd);
    ::unlinkat(folder_->get(), name.c_str(), 0);
    throw_file_error("write", path_, failed);
  }
}

CacheFolder::Put CacheFolder::put(uint64_t name, std::span<const std::span<const std::byte>> pieces) {
  // Room for what else is written there: the checkpoints of this very training, perhaps.
  constexpr int64_t kLeft = int64_t(1) << 30;
  int64_t bytes = 0;
  for (const auto& piece : pieces) bytes += int64_t(piece.size());
  std::string temporary;
  int fd = -1;
  {
    const Lock lock(*this, std::chrono::milliseconds(100));
    if (!lock.held()) return Put::kDone;  // this once it is not kept
    const int64_t taken = used() + cost(bytes);
    if (taken > state_.budget) return Put::kNoRoom;
    struct statvfs info {};
    const bool known = ::fstatvfs(folder_->get(), &info) == 0;
    const int64_t left = std::min(kLeft, int64_t(info.f_blocks) * int64_t(info.f_frsize) / 20);
    const int64_t available = int64_t(info.f_bavail) * int64_t(info.f_frsize);
    if (known && available - cost(bytes) < left) {
      throw Error(ErrorCode::kIo, fmt::format("of its disk only {} MiB are free", available >> 20), {path_.string()},
                  "free some space");
    }
    fd = create_temporary(temporary, bytes);
    set_used(taken);
  }
  const auto fail = [&](int error_number) {
    ::unlinkat(folder_->get(), temporary.c_str(), 0);
    give_back(cost(bytes));
    throw_file_error("write", path_, error_number);
  };
  int failed = write_all(fd, pieces);
  if (::close(fd) != 0 && errno != EINTR && failed == 0) failed = errno;
  if (failed != 0) fail(failed);

  const std::string file = file_of(name);
  const int at = folder_->get();
  const auto rename = [&]() -> int {
    if (::renameat2(at, temporary.c_str(), at, file.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return errno;
    return ::renameat(at, temporary.c_str(), at, file.c_str()) == 0 ? 0 : errno;  // some file systems only replace
  };
  failed = rename();
  if (failed == ENOENT) {
    ::mkdirat(at, folder_of(name).c_str(), 0777);  // or another thread makes it
    failed = rename();
  }
  if (failed == EEXIST) {
    ::unlinkat(at, temporary.c_str(), 0);
    give_back(cost(bytes));
  } else if (failed != 0) {
    fail(failed);
  }
  return Put::kDone;
}

void CacheFolder::remove(uint64_t name, int descriptor) {
  if (!refusal_.empty()) return;
  struct stat info {};
  const bool known = ::fstat(descriptor, &info) == 0;
  if (::unlinkat(folder_->get(), file_of(name).c_str(), 0) == 0 && known) give_back(cost(info.st_size));
}

}  // namespace tessera
