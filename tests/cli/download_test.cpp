// The verb download, and that no other verb can reach a network.
#include <archive.h>
#include <archive_entry.h>

#include "tests/cli/workshop.h"
#include "tests/support/http_server.h"

using namespace tessera::test;

namespace {

bool can_download() {
  static const bool can = !says(run({"info", "--json"}).json()["download"].get<std::string>(), "not in this build");
  if (!can) MESSAGE("skipped: this build cannot download");
  return can;
}

RunOptions without_proxies(RunOptions options) {
  options.environment.insert(options.environment.end(), {"no_proxy=*", "http_proxy=", "https_proxy=", "all_proxy="});
  return options;
}

std::string zipped(const std::vector<std::pair<std::string, std::string>>& files, const Folder& folder, const std::string& name) {
  archive* const writer = archive_write_new();
  archive_write_set_format_zip(writer);
  fs::create_directories(fs::path(folder / name).parent_path());
  REQUIRE(archive_write_open_filename(writer, (folder / name).c_str()) == ARCHIVE_OK);
  for (const auto& [path, text] : files) {
    archive_entry* const entry = archive_entry_new();
    archive_entry_set_pathname(entry, path.c_str());
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, la_int64_t(text.size()));
    archive_write_header(writer, entry);
    archive_write_data(writer, text.data(), text.size());
    archive_entry_free(entry);
  }
  archive_write_close(writer);
  archive_write_free(writer);
  return folder / name;
}

// The data set of a workshop in an archive, two images without labels.
std::string zipped_set(const Folder& folder, const std::string& name, const std::string& top) {
  const std::string row = std::string(kGoodRow) + "\n";
  return zipped({{top + "images/train/a.png", image_png(48, 40)},
                 {top + "images/train/b.png", image_png(48, 40)},
                 {top + "images/val/c.png", image_png(48, 40)},
                 {top + "labels/train/a.txt", row},
                 {top + "labels/val/c.txt", row}},
                folder, name);
}

std::string maps_of(const Process& process) { return content(fmt::format("/proc/{}/maps", process.id())); }

}  // namespace

TEST_CASE("cli: a data set is fetched, unpacked, found, and trained on; a second time nothing is fetched") {
  if (!can_download()) return;
  const Folder folder;
  const RunOptions here = {.folder = folder.path(), .environment = {}, .out = {}, .err = {}, .name = {}};
  const std::string archive = zipped_set(folder, "far/tiny.zip", "tiny/");
  const std::string yaml = folder.write(
      "tiny.yaml", "path: tiny\ntrain: images/train\nval: images/val\nnames: [cat, dog]\ndownload: file://" + archive + "\n");
  // Before: the error of a training names the remedy, and nothing is fetched silently.
  const Arguments train = {"train", "--data", yaml,    "--epochs", "1",     "--imgsz",   "32", "--batch",
                           "1",     "--val",  "false", "--plots",  "false", "--workers", "0"};
  refused(train, 3, {"the images are not there", "tessera download --data " + yaml + " fetches it"}, here);
  CHECK(!fs::exists(folder / "datasets"));

  const Outcome first = run({"download", "--data", yaml}, here);
  INFO(described({}, first));
  CHECK(first.code == 0);
  CHECK(says(first.out, "not verified"));
  CHECK(says(first.out, "unpacked: 5 files"));
  CHECK(says(first.out, "  train: 2 images, 1 with a label file\n  val: 1 images, 1 with a label file\n"));
  CHECK(says(first.out, "next: train_seg --data " + yaml + " --epochs 100"));
  CHECK(fs::exists(folder / "datasets/tiny/images/train/a.png"));
  CHECK(!fs::exists(folder / "datasets/tiny.zip"));  // unpacked and removed
  CHECK(fs::exists(archive));

  const Outcome second = run({"download", "--data", yaml, "--json"}, here);
  const Json j = second.json();
  CHECK(j["command"] == "download");
  CHECK(j["already_there"] == true);
  CHECK(j["archives"].empty());
  CHECK(j["splits"][0] == Json{{"split", "train"}, {"images", 2}, {"labels", 1}});
  CHECK(j["root"] == (folder / "datasets/tiny"));
  CHECK(run(train, here).code == 0);

  // A part lost: the note says that all was unpacked, so the remedy is to remove it.
  fs::remove_all(folder / "datasets/tiny/images/val");
  const std::string note = folder / "datasets/tiny.zip.unpacked";
  refused({"download", "--data", yaml}, 3,
          {"the images are not there", "where files were removed since: rm datasets/tiny.zip.unpacked, then"}, here);
  REQUIRE(fs::exists(note));

  // All lost: it is fetched again, for the note says only what was unpacked then.
  fs::remove_all(folder / "datasets/tiny/images");
  fs::remove_all(folder / "datasets/tiny");
  const Json again = run({"download", "--data", yaml, "--json", "--keep"}, here).json();
  CHECK(again["archives"][0]["verified"] == true);
  CHECK(says(again["archives"][0]["sha256_from"], "tiny.zip.unpacked"));
  CHECK(again["archives"][0]["unpacked"]["files"] == 5);
  CHECK(again["archives"][0]["archive_kept"] == true);
  CHECK(fs::exists(folder / "datasets/tiny.zip"));
}

TEST_CASE("cli: several archives, a sum of the yaml's own, another folder") {
  if (!can_download()) return;
  const Folder folder;
  const RunOptions here = {.folder = folder.path(), .environment = {}, .out = {}, .err = {}, .name = {}};
  const std::string images =
      zipped({{"train/a.png", image_png(48, 40)}, {"val/b.png", image_png(48, 40)}}, folder, "far/images.zip");
  const std::string lists =
      zipped({{"set/train.txt", "./images/train/a.png\n"}, {"set/val.txt", "./images/val/b.png\n"}, {"set/labels/train/a.txt", ""}},
             folder, "far/lists.zip");
  const Json fetched = run({"download", "--url", "file://" + images, "--to", "x.zip", "--json"}, here).json();
  const std::string sum = fetched["sha256"];
  CHECK(sum.size() == 64);
  const auto yaml = [&](const std::string& expected) {
    return folder.write("set.yaml",
                        fmt::format("path: set\ntrain: train.txt\nval: val.txt\nnames: [cat]\ndownload:\n  - file://{}\n"
                                    "  - {{url: 'file://{}', to: set/images, sha256: {}}}\n",
                                    lists, images, expected));
  };
  const Arguments download = {"download", "--data", yaml(std::string(64, '0')), "--data-root", "data"};
  const Outcome wrong = refused(download, 3, {std::string(64, '0'), sum, "set.yaml"}, here);
  CHECK(fs::exists(folder / "data/set/train.txt"));
  CHECK(!fs::exists(folder / "data/images.zip"));
  yaml(sum);
  const Outcome right = run(download, here);
  INFO(described(download, right));
  CHECK(right.code == 0);
  CHECK(says(right.out, "lists.zip: was fetched and unpacked before"));
  CHECK(says(right.out, "verified: as " + (folder / "set.yaml")));
  CHECK(says(right.out, "next: train_seg --data " + (folder / "set.yaml") + " --data-root data "));
  CHECK(fs::exists(folder / "data/set/images/train/a.png"));
}

TEST_CASE("cli: data yamls whose data cannot be had") {
  if (!can_download()) return;
  const Workshop w;
  const auto yaml = [&](const std::string& download) {
    return w.write("lost.yaml", "path: lost\ntrain: images/train\nval: images/val\nnames: [cat]\n" + download);
  };
  refused({"download", "--data", yaml("download: |\n  import os\n  os.system('touch hit')\n")}, 3,
          {"lost.yaml:5:11:", "a script or a command, which is never run"}, w.here());
  refused({"download", "--data", yaml("download: bash hit.sh\n")}, 3, {"lost.yaml:5:11:", "never run"}, w.here());
  refused({"download", "--data", yaml("")}, 3, {"does not say where to get them", "download: https://"}, w.here());
  const std::string other = zipped({{"other/x.txt", "x"}}, w.folder(), "far/other.zip");
  refused({"download", "--data", yaml("download: file://" + other + "\n")}, 3,
          {"everything was fetched and unpacked, but the images are not there"}, w.here());
  const std::string evil = zipped({{"lost/../../evil.txt", "x"}}, w.folder(), "far/evil.zip");
  refused({"download", "--data", yaml("download: file://" + evil + "\n")}, 3, {"leads out of the folder", "do not trust"},
          w.here());
  CHECK(!fs::exists(w / "evil.txt"));
  CHECK(!fs::exists(w / "hit"));
}

TEST_CASE("cli: what download is not given, and what it refuses") {
  if (!can_download()) return;
  const Folder folder;
  const RunOptions here = {.folder = folder.path(), .environment = {}, .out = {}, .err = {}, .name = {}};
  const std::string sum(64, 'a');
  struct Row {
    Arguments arguments;
    std::vector<std::string> parts;
  };
  for (const Row& row : std::vector<Row>{
           {{"download"}, {"what is to be fetched?", "--data coco128-seg.yaml"}},
           {{"download", "--data", "coco8-seg.yaml", "--url", "https://h/x"}, {"one thing at a time: --data and --url"}},
           {{"download", "--url", "ftp://h/x.zip"}, {"'ftp://h/x.zip' is no address", "https://"}},
           {{"download", "--url", "https://h/"}, {"ends without the name of a file", "--to FILE"}},
           {{"download", "--url", "https://h/x", "--sha256", "12"}, {"sha256=12: expected 64 hexadecimal digits"}},
           {{"download", "--data", "shapes"}, {"is made by the program itself"}},
           {{"download", "--data", "https://h/x.zip"}, {"takes a data yaml, not an address", "--url https://h/x.zip --unpack"}},
           {{"download", "--data", "coco8-seg.yaml", "--sha256", sum}, {"--sha256 does not go with --data"}},
           {{"download", "--data", "coco8-seg.yaml", "--to", "x"}, {"--to does not go with --data", "--data-root"}},
           {{"download", "--model", "yolov8n.pt"}, {"there are no weights 'yolov8n.pt'", "yolov8x-seg.pt"}},
           {{"download", "--urk", "x"}, {"did you mean --url?"}},
       }) {
    CAPTURE(row.parts[0]);
    refused(row.arguments, 2, row.parts, here);
  }
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("cli: weights of the original by name, with a word about their licence; the error of a training names the command") {
  if (!can_download()) return;
  const Workshop w;
  RunOptions options = w.here();
  const HttpServer closed([](const HttpRequest&) { return HttpReply{.headers = {}, .body = {}, .hangs_up = true}; });
  options.environment = {"https_proxy=" + closed.url("")};  // nothing leaves this machine
  const Outcome outcome = refused({"download", "--model", "yolov8s-seg", "--retries", "0", "--timeout", "5"}, 6,
                                  {"https://github.com/ultralytics/assets/releases/download/v8.3.0/yolov8s-seg.pt"}, options);
  CHECK(says(outcome.err, "AGPL-3.0"));
  refused({"train", "--data", w / "data.yaml", "--model", "yolov8s-seg.pt"}, 3, {"tessera download --model yolov8s-seg.pt"},
          w.here());
  refused({"predict", "--source", w / "images/val", "--model", "yolov8x-seg.pt"}, 3, {"tessera download --model yolov8x-seg.pt"},
          w.here());
  refused({"predict", "--source", w / "images/val", "--model", "my models/yolov8x-seg.pt"}, 3,
          {"tessera download --model yolov8x-seg.pt --to 'my models/' fetches it"}, w.here());
  w.write("my set.yaml", "path: lost\ntrain: a\nval: b\nnames: [cat]\ndownload: https://host/a.zip\n");
  refused({"train", "--data", "my set.yaml", "--data-root", "da ta"}, 3,
          {"tessera download --data 'my set.yaml' --data-root 'da ta' fetches it"}, w.here());
}

TEST_CASE("cli: a download that is interrupted goes on where it was") {
  if (!can_download()) return;
  const Folder folder;
  ServedFile file{.content = std::string(200'000, 'x'), .modified = {}, .date = {}};
  for (size_t i = 0; i < file.content.size(); i += 7) file.content[i] = char(i);
  HttpServer server([&](const HttpRequest& request) {
    HttpReply reply = file.reply(request);
    reply.cut_after = 50'000, reply.holds = true;
    return reply;
  });
  const RunOptions here = without_proxies({.folder = folder.path(), .environment = {}, .out = {}, .err = {}, .name = {}});
  const Arguments arguments = {"download", server.url("/a/my%20set.bin?x=1"), "--to", "new folder/"};
  const fs::path part = folder / "new folder/my set.bin.part";
  for (const int number : {SIGINT, SIGTERM}) {
    const size_t before = server.requests().size();
    Process process(arguments, here);
    CHECK(
        process.wait_until([&] { return server.requests().size() > before && fs::exists(part) && fs::file_size(part) == 50'000; }));
    CHECK(says(maps_of(process), "libcurl"));
    process.send(number);
    const Outcome outcome = process.finish();
    INFO(described(arguments, outcome));
    CHECK(outcome.code == 7);
    CHECK(says(error_line(outcome), "50000 of 200000 bytes are in new folder/my set.bin.part"));
    CHECK(says(error_line(outcome),
               fmt::format("go on with: tessera download --url '{}' --to 'new folder/'", server.url("/a/my%20set.bin?x=1"))));
    CHECK(fs::file_size(part) == 50'000);
    server.handle([&](const HttpRequest& request) {
      HttpReply reply = file.reply(request);
      reply.cut_after = 0, reply.holds = true;
      return reply;
    });
  }
  server.handle([&](const HttpRequest& request) { return file.reply(request); });
  Arguments json = arguments;
  json.emplace_back("--json");
  const Outcome outcome = run(json, here);
  INFO(described(json, outcome));
  const Json j = outcome.json();
  CHECK(j["resumed_from"] == 50'000);
  CHECK(j["bytes"] == 200'000);
  CHECK(j["verified"] == false);
  CHECK(j["already_there"] == false);
  CHECK(j["url"] == server.url("/a/my%20set.bin?x=1"));
  CHECK(j["path"] == "new folder/my set.bin");
  CHECK(content(folder / "new folder/my set.bin") == file.content);
  CHECK(server.requests().back().header("range") == "bytes=50000-");

  const Json failed =
      run({"download", server.url("/x"), "--to", folder / "y", "--sha256", std::string(64, '0'), "--json"}, here).json();
  CHECK(failed["error"]["code"] == 3);
}

TEST_CASE(
    "cli: a download on a full disk, and into a folder that nobody may write to, is exit code 6; a kill leaves no half file") {
  if (!can_download()) return;
  const Folder folder;
  const ServedFile file{.content = std::string(200'000, 'x'), .modified = {}, .date = {}};
  HttpServer server([&](const HttpRequest& request) { return file.reply(request); });
  RunOptions here = without_proxies({.folder = folder.path(), .environment = {}, .out = {}, .err = {}, .name = {}});
  here.file_limit = 100'000;
  refused({"download", server.url("/set.bin")}, 6, {"set.bin.part", "limit of this process"}, here);
  CHECK(!fs::exists(folder / "set.bin"));
  here.file_limit = -1;
  refused({"download", server.url("/set.bin"), "--to", "/proc/none/"}, 6, {"/proc/none"}, here);
  refused({"download", server.url("/set.bin"), "--to", "/proc/set.bin"}, 6, {"/proc/set.bin"}, here);
  server.handle([&](const HttpRequest& request) {
    HttpReply reply = file.reply(request);
    reply.cut_after = 150'000, reply.holds = true;
    return reply;
  });
  {
    Process process({"download", server.url("/set.bin")}, here);
    CHECK(process.wait_until(
        [&] { return fs::exists(folder / "set.bin.part") && fs::file_size(folder / "set.bin.part") >= 100'000; }));
  }  // killed
  CHECK(!fs::exists(folder / "set.bin"));
  server.handle([&](const HttpRequest& request) { return file.reply(request); });
  CHECK(run({"download", server.url("/set.bin")}, here).code == 0);
  CHECK(content(folder / "set.bin") == file.content);
}

TEST_CASE("cli: an archive by address: loose files get a folder, --to is the folder") {
  if (!can_download()) return;
  const Folder folder;
  const RunOptions here = {.folder = folder.path(), .environment = {}, .out = {}, .err = {}, .name = {}};
  const std::string loose = zipped({{"a.txt", "a"}, {"b.txt", "b"}}, folder, "far/loose.zip");
  const Outcome hinted = run({"download", "--url", "file://" + loose, "--quiet"}, here);
  CHECK(says(hinted.out, "--unpack unpacks it"));
  CHECK(run({"download", "--url", "file://" + loose, "--unpack"}, here).code == 0);
  CHECK(content(folder / "loose/a.txt") == "a");
  CHECK(fs::exists(folder / "loose.zip"));  // it was there before: not ours to remove
  const Json j = run({"download", "--url=file://" + loose, "--unpack", "--to", "x/y", "--json"}, here).json();
  CHECK(j["unpacked"] == Json{{"folder", "x/y"}, {"files", 2}, {"bytes", 2}, {"already_there", 0}});
  CHECK(content(folder / "x/y/b.txt") == "b");
  CHECK(!fs::exists(folder / "x/y/loose.zip"));
  folder.write("z/a.txt", "mine");
  refused({"download", "--url", "file://" + loose, "--unpack", "--to", "z"}, 2, {"z/a.txt", "another content"}, here);
  CHECK(content(folder / "z/a.txt") == "mine");
}

TEST_CASE("cli: an archive of thousands of files without a folder is known again") {
  if (!can_download()) return;
  const Folder folder;
  const RunOptions here = {.folder = folder.path(), .environment = {}, .out = {}, .err = {}, .name = {}};
  std::vector<std::pair<std::string, std::string>> files;
  for (int i = 0; i < 5000; ++i) files.emplace_back(fmt::format("{:0230}.txt", i), "");  // more than a MiB of names
  const Arguments download = {"download", "--url", "file://" + zipped(files, folder, "far/flat.zip"), "--unpack", "--to",
                              "set",      "--json"};
  CHECK(run(download, here).json()["unpacked"]["files"] == 5000);
  const Outcome again = run(download, here);
  INFO(described(download, again));
  CHECK(again.code == 0);
  CHECK(again.json()["already_there"] == true);
}

// What is not loaded cannot be called: libcurl is the only way to a network that the program has.
TEST_CASE("cli: a training does not load what could reach a network") {
  const Workshop w;
  Process process(w.train("offline", {"--epochs", "50"}), w.here());
  CHECK(process.wait_until([&] { return fs::exists(w / "runs/offline/weights/last.safetensors"); }));
  const std::string maps = maps_of(process);
  CHECK(says(maps, "libarchive"));  // the list is that of the program
  CHECK(!says(maps, "libcurl"));
  CHECK(!says(maps, "libssl"));
}

TEST_CASE("cli: a build without libcurl says so") {
  const Json info = run({"info", "--json"}).json();
  if (!says(info["download"].get<std::string>(), "not in this build")) return;
  refused({"download", "https://h/x.zip"}, 2, {"this build cannot download", "libcurl4-openssl-dev"});
  refused({"download", "--data", "coco8-seg.yaml", "--data-root", "/nowhere"}, 2, {"this build cannot download"});
}
