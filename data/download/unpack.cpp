#include "data/download/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <set>
#include <string_view>

#include "tensor/base/check.h"
#include "tensor/base/descriptor.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr std::array<std::string_view, 11> kEndings = {".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".zip", ".tar",
                                                       ".tgz",    ".txz",    ".tzst",    ".tbz2",    ".tbz"};
constexpr size_t kBlock = size_t(1) << 18;

std::string_view ending_of(std::string_view name) {
  for (const std::string_view ending : kEndings) {
    const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? char(a - 'A' + 'a') : a) == b; };
    if (name.size() > ending.size() && std::equal(ending.begin(), ending.end(), name.end() - std::ptrdiff_t(ending.size()),
                                                  [&](char b, char a) { return same(a, b); })) {
      return ending;
    }
  }
  return {};
}

void check_signal(const fs::path& archive) {
  if (interrupt_requested())
    throw Error(ErrorCode::kInterrupted, "interrupted while it was unpacked", {archive.string()},
                "start it again: the archive is kept");
}

void make_folders(const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw_file_error("make the folder", folder, failed.value());
}

// The hidden folder; locked, so that what a killed run left is told from the work of a living one.
class Workplace {
 public:
  Workplace(const fs::path& folder, const fs::path& archive)
      : path_(folder / fmt::format(".{}.unpacking", archive.filename().string())), descriptor_(open(path_)) {
    if (::flock(descriptor_.get(), LOCK_EX | LOCK_NB) != 0) {
      throw Error(ErrorCode::kUsage, "another process is unpacking this archive", {path_.string()}, "wait for it");
    }
    locked_ = true;
    clear();
  }
  ~Workplace() {
    if (!locked_) return;
    clear();
    ::rmdir(path_.c_str());
  }
  const fs::path& path() const { return path_; }

 private:
  static int open(const fs::path& path) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) throw_file_error("write", path, errno);
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) throw_file_error("write", path, errno);
    return fd;
  }
  void clear() const {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(path_, ignored)) fs::remove_all(entry.path(), ignored);
  }

  fs::path path_;
  Descriptor descriptor_;
  bool locked_ = false;
};

// Of a link that lies `depth` folders below. It may go up only at its beginning: "up" after a name could go up from wherever that
// name leads, which is not what the text looks like.
bool leads_out(const std::string& to, std::ptrdiff_t depth) {
  if (to.empty() || to.front() == '/') return true;
  bool descending = false;
  for (const fs::path& part : fs::path(to)) {
    if (part == ".." && (descending || --depth < 0)) return true;
    descending = descending || (part != ".." && part != "." && !part.empty());
  }
  return false;
}

class Extraction {
 public:
  Extraction(const fs::path& archive, const fs::path& target, const UnpackOptions& options)
      : archive_(archive), target_(target), options_(options), reader_(archive_read_new(), archive_read_free) {}

  UnpackReport run() {
    std::error_code failed;
    const int64_t total = int64_t(fs::file_size(archive_, failed));
    archive_read_support_filter_all(reader_.get());
    archive_read_support_format_zip(reader_.get());
    archive_read_support_format_tar(reader_.get());
    archive_read_support_format_gnutar(reader_.get());
    if (archive_read_open_filename(reader_.get(), archive_.c_str(), kBlock) != ARCHIVE_OK) refuse(trouble());
    archive_entry* entry = nullptr;
    while (true) {
      const int status = archive_read_next_header(reader_.get(), &entry);
      if (status == ARCHIVE_EOF) break;
      if (status != ARCHIVE_OK && status != ARCHIVE_WARN) refuse(trouble());
      check_signal(archive_);
      take(entry);
      if (options_.progress) options_.progress(archive_filter_bytes(reader_.get(), -1), total);
    }
    if (report_.files == 0) refuse("the archive holds no files");
    return report_;
  }

 private:
  [[noreturn]] void refuse(
      const std::string& message,
      const std::string& hint = "the archive is damaged or of another kind: fetch it again, or unpack it by hand") const {
    throw Error(ErrorCode::kData, message, {archive_.string()}, hint);
  }
  [[noreturn]] void distrust(const std::string& name, const std::string& why) const {
    refuse(fmt::format("'{}' {}: nothing was unpacked", name, why), "do not trust this archive");
  }
  std::string trouble() const {
    const char* const text = archive_error_string(reader_.get());
    return text != nullptr ? text : "the archive cannot be read";
  }

  // Names are bytes here; the other form is for archives that say they are UTF-8, which a plain locale could not show.
  static std::string text(const char* utf8, const char* bytes) { return utf8 != nullptr ? utf8 : bytes != nullptr ? bytes : ""; }

  void take(archive_entry* entry) {
    const std::string given = text(archive_entry_pathname_utf8(entry), archive_entry_pathname(entry));
    if (given.empty()) refuse("an entry has no name");
    if (!is_inside(given)) distrust(given, "leads out of the folder");
    const fs::path name = tidy(given);
    if (name.empty() || name.filename() == ".DS_Store" || *name.begin() == "__MACOSX") return;
    // Never through a link of the archive's own.
    for (fs::path folder = name.parent_path(); !folder.empty(); folder = folder.parent_path()) {
      if (links_.contains(folder.string())) distrust(given, "lies behind a link of the archive");
    }
    const fs::path path = target_ / name;
    const char* const hard = archive_entry_hardlink(entry);
    if (hard != nullptr) return link_again(given, text(archive_entry_hardlink_utf8(entry), hard), name);
    switch (archive_entry_filetype(entry)) {
      case AE_IFDIR: return make_folders(path);
      case AE_IFREG: return write(entry, path);
      case AE_IFLNK: return link(given, text(archive_entry_symlink_utf8(entry), archive_entry_symlink(entry)), name);
      default: distrust(given, "is a device or a pipe");
    }
  }

  static fs::path tidy(const std::string& name) {  // "./a//b/" is "a/b"
    fs::path out;
    for (const fs::path& part : fs::path(name)) {
      if (!part.empty() && part != ".") out /= part;
    }
    return out;
  }

  void write(archive_entry* entry, const fs::path& path) {
    make_folders(path.parent_path());
    const mode_t mode = archive_entry_perm(entry) & 0111 ? 0777 : 0666;
    remove_earlier(path);
    const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
    if (file.get() < 0) throw_file_error("write", path, errno);
    const void* data = nullptr;
    size_t n = 0;
    la_int64_t at = 0;
    int64_t end = 0;
    for (int status = 0; (status = archive_read_data_block(reader_.get(), &data, &n, &at)) != ARCHIVE_EOF;) {
      if (status != ARCHIVE_OK) refuse(trouble());  // warnings too: of a zip with a wrong checksum libarchive only warns
      check_signal(archive_);
      for (size_t done = 0; done < n;) {
        const ssize_t written = ::pwrite(file.get(), static_cast<const char*>(data) + done, n - done, at + la_int64_t(done));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) throw_file_error("write", path, errno);
        done += size_t(written);
      }
      end = std::max<int64_t>(end, at + int64_t(n));
    }
    const int64_t stated = archive_entry_size_is_set(entry) ? archive_entry_size(entry) : end;
    if (stated < end) refuse(fmt::format("'{}' is longer than the archive says", path.filename().string()));
    if (::ftruncate(file.get(), stated) != 0) throw_file_error("write", path, errno);  // a hole at the end of a sparse file
    ++report_.files;
    report_.bytes += stated;
  }

  // An archive may hold a file twice, as tar does when it is appended to; the last one counts.
  void remove_earlier(const fs::path& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return;
    if (S_ISDIR(info.st_mode)) refuse(fmt::format("'{}' is a folder and a file in it", path.filename().string()));
    ::unlink(path.c_str());
    links_.erase(path.lexically_relative(target_).string());
    --report_.files;
    if (S_ISREG(info.st_mode)) report_.bytes -= info.st_size;
  }

  void link(const std::string& given, const std::string& to, const fs::path& name) {
    if (leads_out(to, std::distance(name.begin(), name.end()) - 1))
      distrust(given, fmt::format("is a link out of the folder, to '{}'", to));
    const fs::path path = target_ / name;
    make_folders(path.parent_path());
    remove_earlier(path);
    if (::symlink(to.c_str(), path.c_str()) != 0) throw_file_error("write", path, errno);
    links_.insert(name.string());
    ++report_.files;
  }

  void link_again(const std::string& given, const std::string& to, const fs::path& name) {  // a hard link: a second name of a file
    const auto unknown = [&] { distrust(given, fmt::format("is a second name of '{}', which is no file of the archive", to)); };
    if (!is_inside(to)) unknown();
    const fs::path path = target_ / name, first = target_ / tidy(to);
    for (fs::path folder = tidy(to).parent_path(); !folder.empty(); folder = folder.parent_path()) {
      if (links_.contains(folder.string())) distrust(given, "lies behind a link of the archive");
    }
    struct stat info {};
    if (::lstat(first.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) unknown();
    if (first == path) return;
    make_folders(path.parent_path());
    remove_earlier(path);
    if (::link(first.c_str(), path.c_str()) != 0) throw_file_error("write", path, errno);
    ++report_.files;
    report_.bytes += info.st_size;
  }

  const fs::path& archive_;
  const fs::path& target_;
  const UnpackOptions& options_;
  const std::unique_ptr<archive, int (*)(archive*)> reader_;
  UnpackReport report_;
  std::set<std::string> links_;
};

// When only a part of an archive is put in place its links must stay inside of that part.
void check_links(const fs::path& archive, const fs::path& part) {
  for (fs::recursive_directory_iterator it(part), end; it != end; ++it) {
    if (it->is_symlink() && leads_out(fs::read_symlink(it->path()).string(), it.depth())) {
      throw Error(ErrorCode::kData, fmt::format("'{}' is a link out of the data set", it->path().lexically_relative(part).string()),
                  {archive.string()}, "unpack it by hand");
    }
  }
}

bool is_real_folder(const fs::file_status& status) { return status.type() == fs::file_type::directory; }

bool same_content(const fs::path& a, const fs::path& b) {
  if (fs::file_size(a) != fs::file_size(b)) return false;
  const auto x = MappedFile::open(a), y = MappedFile::open(b);
  return std::equal(x->bytes().begin(), x->bytes().end(), y->bytes().begin());
}

// Puts a tree to where another may be: looks first at all of it, then moves.
class Move {
 public:
  explicit Move(const fs::path& archive) : archive_(archive) {}

  void check(const fs::path& from, const fs::path& to) {
    check_signal(archive_);
    const fs::file_status source = fs::symlink_status(from), there = fs::symlink_status(to);
    if (!fs::exists(there)) return;
    if (is_real_folder(source) && fs::is_directory(to)) {
      for (const auto& entry : fs::directory_iterator(from)) check(entry.path(), to / entry.path().filename());
      return;
    }
    const bool same = source.type() == there.type() && (fs::is_symlink(source) ? fs::read_symlink(from) == fs::read_symlink(to)
                                                        : fs::is_regular_file(source) ? same_content(from, to)
                                                                                      : false);
    if (!same) {
      throw Error(ErrorCode::kUsage, "a file of this name is there with another content", {to.string()},
                  fmt::format("move it away, or unpack elsewhere; nothing of {} was put in place", archive_.filename().string()));
    }
    ++already_there_;
  }

  void move(const fs::path& from, const fs::path& to) const {
    const fs::file_status source = fs::symlink_status(from);
    const bool there = fs::exists(fs::symlink_status(to));
    if (there && is_real_folder(source)) {
      for (const auto& entry : fs::directory_iterator(from)) move(entry.path(), to / entry.path().filename());
      return;
    }
    if (there || ::rename(from.c_str(), to.c_str()) == 0) return;
    if (errno != EXDEV) throw_file_error("write", to, errno);
    // A link of the user's leads to another file system.
    if (is_real_folder(source)) {
      make_folders(to);
      for (const auto& entry : fs::directory_iterator(from)) move(entry.path(), to / entry.path().filename());
    } else if (fs::is_symlink(source)) {
      fs::copy_symlink(from, to);
    } else {
      write_file_atomic(to, [&](AtomicFile& file) { file.write(MappedFile::open(from)->bytes()); });
    }
  }

  int64_t already_there() const { return already_there_; }

 private:
  const fs::path& archive_;
  int64_t already_there_ = 0;
};

}  // namespace

bool is_archive_name(const fs::path& file) { return !ending_of(file.filename().string()).empty(); }

std::string archive_stem(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.substr(0, name.size() - ending_of(name).size());
}

bool is_inside(const std::string& path) {
  const fs::path p(path);
  return !path.empty() && !p.is_absolute() && path.find('\0') == std::string::npos &&
         std::find(p.begin(), p.end(), "..") == p.end();
}

UnpackReport unpack(const fs::path& archive, const fs::path& folder, const UnpackOptions& options) {
  make_folders(folder);
  const Workplace work(folder, archive);
  UnpackReport report = Extraction(archive, work.path(), options).run();
  const Placement placement = options.place ? options.place(work.path()) : Placement{work.path(), folder};
  report.folder = placement.to;
  if (placement.from != work.path()) check_links(archive, placement.from);
  for (const auto& entry : fs::directory_iterator(placement.from)) report.names.push_back(entry.path().filename().string());
  std::sort(report.names.begin(), report.names.end());
  make_folders(placement.to);
  Move move(archive);
  for (const std::string& name : report.names) move.check(placement.from / name, placement.to / name);
  {
    const Descriptor file_system(::open(work.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (::syncfs(file_system.get()) != 0) throw_file_error("write", folder, errno);  // content before names
  }
  for (const std::string& name : report.names) move.move(placement.from / name, placement.to / name);
  report.already_there = move.already_there();
  return report;
}

}  // namespace tessera
