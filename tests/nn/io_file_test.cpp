#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <vector>

#include "tensor/base/file.h"
#include "tests/nn/io_helpers.h"

using namespace tessera;

TEST_CASE("files: write, replace, read, map") {
  const TempFolder folder;
  const auto path = folder / "a.bin";
  write_file_atomic(path, "first");
  CHECK(read_file(path) == "first");
  const auto mapped = MappedFile::open(path);
  write_file_atomic(path, [](AtomicFile& file) {
    std::vector<std::string> texts(1000, "xy");  // more pieces than one system call takes
    texts[3].clear();
    std::vector<std::span<const std::byte>> pieces;
    for (const auto& t : texts) pieces.push_back(std::as_bytes(std::span(t)));
    file.write(pieces);
    file.write(std::string_view());
  });
  CHECK(read_file(path).size() == 1998);
  CHECK(std::memcmp(mapped->bytes().data(), "first", 5) == 0);  // the old content stays mapped
  CHECK(entries_in(folder.path()) == 1);
  write_file_atomic(folder / "empty", "");
  CHECK(read_file(folder / "empty").empty());
  CHECK(MappedFile::open(folder / "empty")->bytes().empty());
  CHECK(error_of([&] { read_file(path, 10); }).code() == ErrorCode::kData);
}

TEST_CASE("files: a failed write keeps the old file and leaves nothing behind") {
  const TempFolder folder;
  const auto path = folder / "a.bin";
  write_file_atomic(path, "old");
  CHECK_THROWS_AS(write_file_atomic(path,
                                    [](AtomicFile& file) {
                                      file.write("half");
                                      throw std::runtime_error("stop");
                                    }),
                  std::runtime_error);
  CHECK(read_file(path) == "old");
  CHECK(entries_in(folder.path()) == 1);
}

TEST_CASE("files: errors name path, cause and remedy") {
  const TempFolder folder;
  const Error absent = error_of([&] { read_file(folder / "none"); });
  CHECK(absent.code() == ErrorCode::kData);
  CHECK(contains(absent.what(), "none"));
  CHECK(contains(absent.what(), "No such file"));
  const Error no_folder = error_of([&] { write_file_atomic(folder / "x/y", "z"); });
  CHECK(no_folder.code() == ErrorCode::kIo);
  CHECK(contains(no_folder.hint(), "folder must exist"));
  CHECK(contains(error_of([&] { write_file_atomic(folder.path(), "z"); }).hint(), "name a file"));
  CHECK(contains(error_of([&] { read_file(folder.path()); }).what(), "directory"));
  CHECK(contains(error_of([&] { MappedFile::open("/dev/null"); }).what(), "pipe or a device"));
  const Error full = error_of([] { write_file_atomic("/dev/full", "z"); });
  CHECK(full.code() == ErrorCode::kIo);
  CHECK(contains(full.hint(), "full"));
  if (::geteuid() != 0) {
    write_file_atomic(folder / "locked", "z");
    ::chmod((folder / "locked").c_str(), 0444);
    CHECK(contains(error_of([&] { write_file_atomic(folder / "locked", "z"); }).hint(), "permission"));
  }
}

TEST_CASE("files: links are followed, modes kept, devices not replaced") {
  const TempFolder folder;
  write_file_atomic(folder / "real", "1");
  ::chmod((folder / "real").c_str(), 0640);
  std::filesystem::create_symlink("real", folder / "link");
  write_file_atomic(folder / "link", "2");
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(read_file(folder / "real") == "2");
  struct stat info {};
  ::stat((folder / "real").c_str(), &info);
  CHECK((info.st_mode & 0777) == 0640);
  write_file_atomic("/dev/null", "x");
  CHECK(std::filesystem::is_character_file("/dev/null"));
}

TEST_CASE("files: the temporary of a killed writer is removed, that of a living one and other files are not") {
  const TempFolder folder;
  const auto touch = [&](const std::string& name) { std::ofstream(folder / name) << "x"; };
  touch(".a.bin.123-0.tessera-tmp");
  touch(".a.bin.old.123-0.tessera-tmp");  // of a.bin.old
  touch(".a.bin.7-1.tessera-tmp");
  const int alive = ::open((folder / ".a.bin.7-1.tessera-tmp").c_str(), O_RDWR);
  REQUIRE(::flock(alive, LOCK_EX) == 0);
  write_file_atomic(folder / "a.bin", "new");
  CHECK_FALSE(std::filesystem::exists(folder / ".a.bin.123-0.tessera-tmp"));
  CHECK(std::filesystem::exists(folder / ".a.bin.old.123-0.tessera-tmp"));
  CHECK(std::filesystem::exists(folder / ".a.bin.7-1.tessera-tmp"));
  ::close(alive);
}

TEST_CASE("files: a name as long as the file system takes") {
  const TempFolder folder;
  for (const std::string& name : {std::string(255, 'n'), "a" + std::string(251, '-') + ".md"}) {
    write_file_atomic(folder / name, "1");
    write_file_atomic(folder / name, "2");
    CHECK(read_file(folder / name) == "2");
  }
  std::string wide = "x";
  while (wide.size() + 3 <= 255) wide += "\u65e5";                                    // three bytes each
  std::ofstream(folder / ("." + wide.substr(0, 199) + ".123-0.tessera-tmp")) << "x";  // of a killed writer
  write_file_atomic(folder / wide, "3");
  CHECK(read_file(folder / wide) == "3");
  CHECK(entries_in(folder.path()) == 3);
}

TEST_CASE("files: running into a size limit is an error, not the end of the old file") {
  const TempFolder folder;
  const auto path = folder / "a.bin";
  write_file_atomic(path, "old");
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 16, 1 << 16};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file_atomic(path, std::string(1 << 20, 'n'));
    } catch (const Error& e) {
      ::_exit(e.code() == ErrorCode::kIo && contains(e.hint(), "intact") ? 0 : 1);
    }
    ::_exit(2);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(read_file(path) == "old");
  CHECK(entries_in(folder.path()) == 1);
}
