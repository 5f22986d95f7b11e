// Archives of every kind unpack to what was packed; those that mean harm, are damaged or meet other files leave nothing behind. And
// where data yamls say that their data are.
#include "data/download/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <memory>

#include "data/download/archive.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"
#include "tests/data/support.h"
#include "tests/support/error_of.h"

using namespace tessera;
using tessera::testing::error_of;
using tessera::testing::says_in_full;
using namespace tessera::test;
namespace fs = std::filesystem;

namespace {

struct Packed {
  std::string name, content;
  unsigned type = AE_IFREG;  // AE_IFLNK: `content` is where it leads; 0: a hard link to `content`
  unsigned mode = 0644;
};

// The form is told by the end of the name.
fs::path pack(const fs::path& file, const std::vector<Packed>& entries, const char* options = nullptr) {
  const std::unique_ptr<archive, int (*)(archive*)> writer(archive_write_new(), archive_write_free);
  const std::string name = file.string();
  const auto ends = [&](const char* end) { return name.ends_with(end); };
  REQUIRE((ends(".zip") ? archive_write_set_format_zip(writer.get()) : archive_write_set_format_pax_restricted(writer.get())) ==
          ARCHIVE_OK);
  if (ends("gz")) archive_write_add_filter_gzip(writer.get());
  if (ends("xz")) archive_write_add_filter_xz(writer.get());
  if (ends("zst")) archive_write_add_filter_zstd(writer.get());
  if (options != nullptr) {
    REQUIRE(archive_write_set_options(writer.get(), options) == ARCHIVE_OK);
    archive_write_set_passphrase(writer.get(), "word");
  }
  REQUIRE(archive_write_open_filename(writer.get(), name.c_str()) == ARCHIVE_OK);
  for (const Packed& p : entries) {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), p.name.c_str());
    archive_entry_set_filetype(entry.get(), p.type == 0 ? unsigned(AE_IFREG) : p.type);
    archive_entry_set_perm(entry.get(), p.mode);
    archive_entry_set_size(entry.get(), p.type == AE_IFREG ? la_int64_t(p.content.size()) : 0);
    if (p.type == AE_IFLNK) archive_entry_set_symlink(entry.get(), p.content.c_str());
    if (p.type == 0) archive_entry_set_hardlink(entry.get(), p.content.c_str());
    REQUIRE(archive_write_header(writer.get(), entry.get()) >= ARCHIVE_WARN);
    if (p.type == AE_IFREG)
      REQUIRE(archive_write_data(writer.get(), p.content.data(), p.content.size()) == la_ssize_t(p.content.size()));
  }
  REQUIRE(archive_write_close(writer.get()) == ARCHIVE_OK);
  return file;
}

// Every path below a folder, sorted; "name -> target" for a link.
std::vector<std::string> tree(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& e : fs::recursive_directory_iterator(folder)) {
    std::string line = e.path().lexically_relative(folder).string();
    if (e.is_symlink()) line += " -> " + fs::read_symlink(e.path()).string();
    out.push_back(line);
  }
  std::sort(out.begin(), out.end());
  return out;
}

using Paths = std::vector<std::string>;

}  // namespace

TEST_CASE("archives of every kind unpack to what was packed") {
  const TempFolder folder;
  const std::string big(3'000'000, 'x');
  const std::vector<Packed> entries = {{"set/", "", AE_IFDIR},
                                       {"set/images/a.jpg", big},
                                       {"set/empty", ""},
                                       {"./set/run.sh", "#!", AE_IFREG, 04755},
                                       {"set/s\xC3\xBC\xC3\x9F.txt", "sweet"},
                                       {"set/link", "images", AE_IFLNK},
                                       {"__MACOSX/set/._a", "junk"},
                                       {"set/.DS_Store", "junk"}};
  for (const char* name : {"a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.tar.zst", "A.ZIP"}) {
    CAPTURE(name);
    if (std::string_view(name) == "A.ZIP") continue;
    const fs::path archive = pack(folder.path() / name, entries);
    const fs::path to = folder.path() / fmt::format("to_{}", name);
    int64_t done = 0, total = 0;
    const UnpackReport report = unpack(archive, to, {.place = {}, .progress = [&](int64_t d, int64_t t) { done = d, total = t; }});
    CHECK(tree(to) == Paths{"set", "set/empty", "set/images", "set/images/a.jpg", "set/link -> images", "set/run.sh",
                            "set/s\xC3\xBC\xC3\x9F.txt"});
    CHECK(read_file(to / "set/images/a.jpg") == big);
    CHECK(read_file(to / "set/s\xC3\xBC\xC3\x9F.txt") == "sweet");
    CHECK(report.files == 5);
    CHECK(report.bytes == 3'000'007);
    CHECK(report.names == Paths{"set"});
    CHECK(report.already_there == 0);
    CHECK(total == int64_t(fs::file_size(archive)));
    CHECK(done > 0);
    CHECK((fs::status(to / "set/run.sh").permissions() & fs::perms::mask) ==
          (fs::status(to / "set/images").permissions() & fs::perms::mask));
    CHECK((fs::status(to / "set/empty").permissions() & fs::perms(07111)) == fs::perms::none);
  }
  CHECK(is_archive_name("A.ZIP"));
  CHECK(is_archive_name("x/my.set.tar.gz"));
  CHECK(archive_stem("x/my.set.tar.gz") == "my.set");
  CHECK(!is_archive_name("yolov8n-seg.pt"));
  CHECK(!is_archive_name(".zip"));
}

TEST_CASE("archives that mean harm leave nothing, inside or outside") {
  const TempFolder folder;
  fs::create_directories(folder.path() / "outside");
  const std::string outside = (folder.path() / "outside").string();
  const Packed good{"good.txt", "good"};
  struct Row {
    std::vector<Packed> entries;
    std::string said;
  };
  const std::vector<Row> rows = {
      {{good, {"../evil", "x"}}, "leads out"},
      {{good, {"a/../../evil", "x"}}, "leads out"},
      {{good, {outside + "/evil", "x"}}, "leads out"},
      {{good, {"up", "..", AE_IFLNK}}, "out of the folder, to '..'"},
      {{good, {"up", outside, AE_IFLNK}}, "out of the folder"},
      {{good, {"a/up", "../../outside", AE_IFLNK}}, "out of the folder"},
      // "here" is the folder itself: up from it is out, though the text of the second link stays inside.
      {{good, {"here", ".", AE_IFLNK}, {"up", "here/here/..", AE_IFLNK}}, "out of the folder"},
      {{good, {"a/b/c", "x"}, {"in", "a/b", AE_IFLNK}, {"in/evil", "x"}}, "behind a link"},
      {{good, {"a/b/c", "x"}, {"in", "a/b", AE_IFLNK}, {"in/sub/", "", AE_IFDIR}}, "behind a link"},
      {{good, {"pipe", "", AE_IFIFO}}, "a device or a pipe"},
      {{good, {"null", "", AE_IFCHR}}, "a device or a pipe"},
      {{good, {"twin", "../outside/precious", 0}}, "second name"},
      {{good, {"twin", outside + "/precious", 0}}, "second name"},
      {{good, {"twin", "none", 0}}, "second name"},
      {{good, {"a/b", "x"}, {"in", "a", AE_IFLNK}, {"twin", "in/b", 0}}, "behind a link"},
  };
  folder.write("outside/precious", "mine");
  for (const Row& row : rows) {
    for (const char* name : {"evil.tar", "evil.zip"}) {
      const std::string& last = row.entries.back().name;
      CAPTURE(name);
      CAPTURE(last);
      const auto odd = [](const Packed& p) { return p.type != AE_IFREG && p.type != AE_IFLNK && p.type != AE_IFDIR; };
      if (std::string_view(name).ends_with(".zip") && std::any_of(row.entries.begin(), row.entries.end(), odd))
        continue;  // zip has no such
      const fs::path archive = pack(folder.path() / name, row.entries);
      const Error e = error_of([&] { unpack(archive, folder.path() / "to"); });
      CHECK(e.code() == ErrorCode::kData);
      CHECK(says_in_full(e, row.said));
      CHECK(says_in_full(e, archive.string()));
      CHECK(fs::is_empty(folder.path() / "to"));
      CHECK(tree(folder.path() / "outside") == Paths{"precious"});
      CHECK(!fs::exists(folder.path() / "evil"));
    }
  }
}

TEST_CASE("links and second names inside of the folder are kept; of a name that comes twice the last counts") {
  const TempFolder folder;
  const fs::path archive = pack(
      folder.path() / "a.tar",
      {{"a/one", "1"}, {"b/up", "../a/one", AE_IFLNK}, {"a/two", "a/one", 0}, {"c", "first"}, {"c", "second!"}, {"a/one", "new"}});
  const UnpackReport report = unpack(archive, folder.path() / "to");
  CHECK(tree(folder.path() / "to") == Paths{"a", "a/one", "a/two", "b", "b/up -> ../a/one", "c"});
  CHECK(read_file(folder.path() / "to/c") == "second!");
  CHECK(read_file(folder.path() / "to/b/up") == "new");
  CHECK(read_file(folder.path() / "to/a/two") == "1");
  CHECK(report.files == 4);
  CHECK(report.bytes == 7 + 3 + 1);
}

TEST_CASE("files that are there: equal ones stay, another one stops everything before anything is moved") {
  const TempFolder folder;
  const fs::path to = folder.path() / "to";
  const fs::path archive =
      pack(folder.path() / "a.zip", {{"set/a", "one"}, {"set/b", "two"}, {"set/sub/c", "three"}, {"set/l", "a", AE_IFLNK}});
  folder.write("to/set/b", "two");
  folder.write("to/set/own", "mine");
  SUBCASE("equal") {
    const auto before = fs::last_write_time(to / "set/b");
    const UnpackReport report = unpack(archive, to);
    CHECK(report.already_there == 1);
    CHECK(tree(to) == Paths{"set", "set/a", "set/b", "set/l -> a", "set/own", "set/sub", "set/sub/c"});
    CHECK(fs::last_write_time(to / "set/b") == before);
    CHECK(unpack(archive, to).already_there == 4);
    return;
  }
  SUBCASE("another content") { folder.write("to/set/sub/c", "THREE"); }
  SUBCASE("another length") { folder.write("to/set/sub/c", ""); }
  SUBCASE("a folder") { fs::create_directories(to / "set/sub/c"); }
  SUBCASE("a file where the archive has a folder") { folder.write("to/set/sub", ""); }
  SUBCASE("a link that leads elsewhere") { fs::create_symlink("b", to / "set/l"); }
  SUBCASE("a link that leads nowhere") { fs::create_symlink("none", to / "set/a"); }
  const auto before = tree(to);
  const Error e = error_of([&] { unpack(archive, to); });
  CHECK(e.code() == ErrorCode::kUsage);
  CHECK(says_in_full(e, (to / "set").string()));
  CHECK(tree(to) == before);
}

TEST_CASE("damaged, locked and other archives leave nothing; a signal neither") {
  const TempFolder folder;
  const fs::path to = folder.path() / "to";
  std::string noise(200'000, '\0');
  Rng rng(1, RngPurpose::kTest);
  for (char& c : noise) c = char(rng.next_u32());
  const std::vector<Packed> entries = {{"a", noise}, {"b", noise}};
  ErrorCode code = ErrorCode::kData;
  fs::path archive;
  SUBCASE("cut short") {
    for (const char* name : {"c.zip", "c.tar.gz", "c.tar.xz", "c.tar"}) {
      CAPTURE(name);
      archive = pack(folder.path() / name, entries);
      fs::resize_file(archive, fs::file_size(archive) - (std::string_view(name) == "c.tar" ? 150'000 : 100'000));
      CHECK(error_of([&] { unpack(archive, to); }).code() == ErrorCode::kData);
      CHECK(fs::is_empty(to));
    }
  }
  SUBCASE("a bit flipped") {
    archive = pack(folder.path() / "c.zip", entries);
    const std::string bytes = read_file(archive);
    for (size_t part = 1; part < 16; ++part) {
      CAPTURE(part);
      std::string damaged = bytes;
      damaged[bytes.size() * part / 32] = char(damaged[bytes.size() * part / 32] ^ 1);
      write_file_atomic(archive, damaged);
      CHECK(error_of([&] { unpack(archive, to); }).code() == ErrorCode::kData);
      CHECK(fs::is_empty(to));
    }
  }
  SUBCASE("a password") { archive = pack(folder.path() / "c.zip", entries, "zip:encryption=aes256"); }
  SUBCASE("no archive") { archive = folder.write("c.zip", "<html>"); }
  SUBCASE("an empty file") { archive = folder.write("c.zip", ""); }
  SUBCASE("an archive of nothing") { archive = pack(folder.path() / "c.tar", {{"a/", "", AE_IFDIR}}); }
  SUBCASE("a signal") {
    archive = pack(folder.path() / "c.zip", entries);
    request_interrupt();
    code = ErrorCode::kInterrupted;
  }
  const Error e = error_of([&] { unpack(archive, to); });
  clear_interrupt();
  CHECK(e.code() == code);
  CHECK(says_in_full(e, archive.string()));
  CHECK(fs::is_empty(to));
}

TEST_CASE("what a killed run left is cleared; the work of a living one is not touched") {
  const TempFolder folder;
  const fs::path archive = pack(folder.path() / "a.zip", {{"set/a", "one"}}), work = folder.path() / "to/.a.zip.unpacking";
  folder.write("to/.a.zip.unpacking/set/half", "hal");
  const int fd = open(work.c_str(), O_RDONLY | O_DIRECTORY);
  REQUIRE(flock(fd, LOCK_EX) == 0);
  CHECK(error_of([&] { unpack(archive, folder.path() / "to"); }).code() == ErrorCode::kUsage);
  CHECK(read_file(work / "set/half") == "hal");
  close(fd);
  unpack(archive, folder.path() / "to");
  CHECK(tree(folder.path() / "to") == Paths{"set", "set/a"});
}

TEST_CASE("where an archive of a data set goes") {
  struct Row {
    std::string path;             // of the yaml
    std::vector<Packed> entries;  // of the archive
    Paths files;                  // below data/
  };
  const Packed a{"images/train/a.png", "a"}, b{"images/val/b.png", "b"}, l{"labels/train/a.txt", "l"};
  const auto in = [](const std::string& top, const Packed& p) { return Packed{top + p.name, p.content}; };
  const Paths wanted = {"set/images/train/a.png", "set/images/val/b.png"};
  for (const Row& row : std::vector<Row>{
           {"path: set\n", {in("set/", a), in("set/", b), {"README", "hi"}}, {"README", wanted[0], wanted[1]}},  // as it is
           {"path: set\n", {a, b, l}, {wanted[0], wanted[1], "set/labels/train/a.txt"}},  // without a folder of its own
           {"path: set\n", {in("set-v2/", a), in("set-v2/", b)}, wanted},                 // under another name
           {"path: set\n", {in("x/y/", a), in("x/y/", b)}, wanted},                       // deeper
           {"path: set\n", {l}, {"set/labels/train/a.txt"}},                              // a part, loose
           {"path: set\n", {in("set/", l)}, {"set/labels/train/a.txt"}},                  // a part, named
           {"path: ../sets/set\n", {a, b}, wanted},
           {"", {in("set-v2/", a), in("set-v2/", b)}, {"images/train/a.png", "images/val/b.png"}},  // the yaml's own folder
       }) {
    CAPTURE(row.path);
    const std::string first = row.entries[0].name;
    CAPTURE(first);
    const TempFolder folder;
    const fs::path archive = pack(folder.path() / "a.zip", row.entries), data = folder.path() / "data";
    const std::string yaml_file =
        folder.write("data/set.yaml", row.path + "train: images/train\nval: images/val\nnames: [cat]\n").string();
    const DownloadPlace place = download_place(read_dataset_text(yaml_file), data);
    const DatasetYaml yaml = load_dataset_yaml(yaml_file, data);
    unpack(archive, place.folder, {.place = [&](const fs::path& all) { return place_of_data(all, place, yaml); }, .progress = {}});
    fs::remove(yaml_file);
    Paths files;
    for (const std::string& path : tree(data)) {
      if (fs::is_regular_file(data / path)) files.push_back(path);
    }
    CHECK(files == row.files);
  }
}

TEST_CASE("a part of an archive that links out of that part is refused") {
  const TempFolder folder;
  const fs::path archive = pack(folder.path() / "a.tar", {{"x/in/a", "1"}, {"x/in/up", "../..", AE_IFLNK}});
  const Error e = error_of([&] {
    unpack(archive, folder.path() / "to",
           {.place =
                [&](const fs::path& all) {
                  return Placement{all / "x/in", folder.path() / "to"};
                },
            .progress = {}});
  });
  CHECK(e.code() == ErrorCode::kData);
  CHECK(says_in_full(e, "'up' is a link out of the data set"));
  CHECK(fs::is_empty(folder.path() / "to"));
}

TEST_CASE("the key download: addresses in every form, scripts never") {
  const TempFolder folder;
  const std::string sum(64, 'A');
  const auto sources = [&](const std::string& text) {
    return download_sources(read_dataset_text(folder.write("data.yaml", "train: a\nval: b\nnames: [x]\n" + text).string()));
  };
  const auto urls = [&](const std::string& text) {
    Paths out;
    for (const DownloadSource& s : sources(text)) out.push_back(s.url);
    return out;
  };
  CHECK(sources("").empty());
  CHECK(sources("download:\n").empty());
  CHECK(urls("download: https://h/a.zip\n") == Paths{"https://h/a.zip"});
  CHECK(urls("download: |\n  # two\n  https://h/a.zip\n\n  file:///b.zip  \n") == Paths{"https://h/a.zip", "file:///b.zip"});
  CHECK(urls("download: [http://h/a.zip, {url: 'http://h/b.zip', to: x/y}]\n") == Paths{"http://h/a.zip", "http://h/b.zip"});
  CHECK(sources("download: https://h/a.zip\nsha256: " + sum + "\n")[0].sha256 == std::string(64, 'a'));
  const auto full = sources("download:\n  - {url: 'http://h/b.zip', to: x/y, sha256: " + sum + "}\n");
  CHECK(full.at(0).to == "x/y");
  CHECK(full.at(0).sha256 == std::string(64, 'a'));
  for (const auto& [text, said, line] : std::vector<std::tuple<std::string, std::string, int>>{
           {"download: bash get.sh\n", "never run", 4},
           {"download: |\n  import os\n  os.system('x')\n", "never run", 4},
           {"download: |\n  https://h/a.zip\n  import os\n", "never run", 4},
           {"download: https://h/a.zip; rm -r x\n", "never run", 4},
           {"download: [ftp://h/a.zip]\n", "never run", 4},
           {"download: {url: x}\n", "an address was expected", 4},
           {"download: [[a]]\n", "an address was expected", 4},
           {"download:\n  - {to: x}\n", "'url' is missing", 5},
           {"download:\n  - {url: 'http://h/b', to: ../x}\n", "leads out", 5},
           {"download:\n  - {url: 'http://h/b', to: /x}\n", "leads out", 5},
           {"download:\n  - {url: 'http://h/b', sum: x}\n", "'sum' is no key", 5},
           {"download:\n  - {url: 'http://h/b', sha256: abc}\n", "64 hexadecimal digits", 5},
           {"download: [http://h/a, http://h/b]\nsha256: " + sum + "\n", "for a single address", 5}}) {
    CAPTURE(text);
    const std::string wanted = said;
    const Error e = error_of([&] { sources(text); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(says_in_full(e, wanted));
    CHECK(e.where().line == line);
  }
  for (const std::string_view name : builtin_dataset_names()) {
    for (const DownloadSource& s : download_sources(read_dataset_text(std::string(name)))) CHECK(s.url.starts_with("http"));
    CHECK(!download_sources(read_dataset_text(std::string(name))).empty());
  }
}
