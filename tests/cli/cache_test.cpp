// --cache disk as a user meets it: where the decoded images are, what is said, and folders that do not do.
#include <algorithm>

#include "tests/cli/workshop.h"

using namespace tessera::test;

namespace {

int64_t entries_in(const fs::path& folder) {
  int64_t entries = 0;
  std::error_code ignored;
  for (fs::recursive_directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored))
    entries += it->path().extension() == ".rgb";
  return entries;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) names.push_back(entry.path().string());
  std::sort(names.begin(), names.end());
  return names;
}

int64_t count_of(std::string_view text, std::string_view part) {
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// Images that have just changed are not kept.
void settle() { std::this_thread::sleep_for(std::chrono::milliseconds(2100)); }

}  // namespace

TEST_CASE("cli: --cache disk keeps decoded images in the user's cache folder, none beside the image files, and says how many") {
  const Workshop w;
  settle();
  const std::vector<std::string> before = names_in(w / "images");
  RunOptions options = w.here();
  options.environment = {"XDG_CACHE_HOME=" + (w / "caches")};
  const std::string place = w / "caches/tessera/images";
  // As a run of the original says it.
  const std::string file = w.write("args.yaml", "task: segment\nmode: train\namp: true\ncache: disk\n");
  const Outcome cold = run(w.train("cold", {"--cfg", file}), options);
  INFO(cold.err);
  CHECK(cold.code == 0);
  CHECK(says(cold.err, "cache: " + place + " holds 0 of the 6 training images decoded"));
  CHECK(entries_in(place) == 6);
  CHECK((fs::status(place).permissions() & fs::perms::all) == fs::perms::owner_all);

  options.environment = {"HOME=" + (w / "caches/home"), "XDG_CACHE_HOME="};
  const Outcome home = run(w.train("home", {"--cache", "disk"}), options);
  CHECK(says(home.err, (w / "caches/home/.cache/tessera/images") + " holds 0 of the 6"));
  CHECK(entries_in(w / "caches/home/.cache/tessera/images") == 6);

  const Outcome warm = run(w.train("warm", {"--cache", "disk", "--cache-dir", place, "--cache-mib", "7"}), options);
  INFO(warm.err);
  CHECK(says(warm.err, "holds 6 of the 6 training images decoded"));
  CHECK(says(warm.err, "the budget is 7 MiB"));
  CHECK(names_in(w / "images") == before);

  // Its first images come before it measures; then all are in memory.
  const Outcome bench = run(
      {"bench", "loader", "--data", w / "data.yaml", "--imgsz", "32", "--cache", "disk", "--cache-dir", place, "--json"}, options);
  INFO(bench.err);
  CHECK(bench.code == 0);
  CHECK(bench.json()["cache"] == "disk");
  CHECK(bench.json()["decodes"] == 0);
  CHECK(bench.json()["disk_reads"] == 0);
}

TEST_CASE("cli: --cache disk in a folder that does not do is one warning, and the training goes on") {
  const Workshop w;
  const std::string file = w.write("file", "mine");
  for (const std::string& place : {file, file + "/below", std::string("/proc/tessera")}) {
    CAPTURE(place);
    const Outcome outcome = run(w.train("x", {"--exist-ok", "--cache", "disk", "--cache-dir", place, "--epochs", "2"}), w.here());
    INFO(outcome.err);
    CHECK(outcome.code == 0);
    CHECK(count_of(outcome.err, "warning: ") == 1);
    CHECK(says(outcome.err, "warning: " + place + ": no decoded images are kept there: cannot"));
  }
  RunOptions options = w.here();
  options.environment = {"HOME=", "XDG_CACHE_HOME=not/absolute"};
  const Outcome outcome = run(w.train("x", {"--exist-ok", "--cache", "disk"}), options);
  CHECK(outcome.code == 0);
  CHECK(says(outcome.err, "warning: no folder for decoded images"));
  CHECK(content(file) == "mine");
}

TEST_CASE("cli: --cache-dir and --cache-mib without a cache are refused; of a file or the environment they are noted") {
  const Workshop w;
  const std::string place = w / "cache";
  const auto refused = [&](const Arguments& more, const std::string& why, const std::string& remedy) {
    const Outcome outcome = run(w.train("x", more), w.here());
    INFO(outcome.err);
    CHECK(outcome.code == 2);
    CHECK(says(outcome.err, why));
    CHECK(says(outcome.err, remedy));
    CHECK(!fs::exists(w / "runs"));
  };
  refused({"--cache-dir", place}, "--cache-dir is the folder of --cache disk, and --cache is false", "add --cache disk");
  refused({"--cache-dir", place, "--cache", "ram"}, "--cache-dir is the folder of --cache disk, and --cache is ram",
          "or leave --cache-dir out");
  refused({"--cache-mib", "7"}, "--cache-mib is the limit of --cache ram or disk, and --cache is false",
          "add --cache ram or --cache disk");
  const Outcome bench = run({"bench", "loader", "--data", w / "data.yaml", "--imgsz", "32", "--cache-mib", "7"}, w.here());
  CHECK(bench.code == 2);

  // args.yaml of a run with a cache runs again, with it or without.
  const Outcome first = run(w.train("first", {"--cache", "disk", "--cache-dir", place, "--cache-mib", "7"}), w.here());
  INFO(first.err);
  CHECK(first.code == 0);
  CHECK(!says(first.err, "is not used"));
  const std::string file = w / "runs/first/args.yaml";
  const Outcome again = run({"train", "--cfg", file, "--name", "again"}, w.here());
  CHECK(again.code == 0);
  CHECK(!says(again.err, "is not used"));
  const Outcome without = run({"train", "--cfg", file, "--name", "without", "--cache", "false"}, w.here());
  INFO(without.err);
  CHECK(without.code == 0);
  CHECK(count_of(without.err, "note: cache_dir of " + file + " is not used, --cache is false\n") == 1);
  CHECK(count_of(without.err, "note: cache_mib of " + file + " is not used, --cache is false\n") == 1);

  RunOptions options = w.here();
  options.environment = {"TESSERA_ARG_CACHE_DIR=" + place};
  const Outcome standing = run(w.train("standing"), options);
  CHECK(standing.code == 0);
  CHECK(says(standing.err, "note: cache_dir of TESSERA_ARG_CACHE_DIR is not used, --cache is false\n"));
}

TEST_CASE("cli: two trainings with one --cache-dir at once, and one that was killed, leave it whole") {
  const Workshop w;
  settle();
  const std::string place = w / "cache";
  {
    Process killed(w.train("killed", {"--cache", "disk", "--cache-dir", place, "--epochs", "1000"}), w.here());
    CHECK(killed.wait_until([&] { return entries_in(place) > 0; }));
    killed.send(SIGKILL);
    killed.finish();
  }
  Process one(w.train("one", {"--cache", "disk", "--cache-dir", place}), w.here());
  Process two(w.train("two", {"--cache", "disk", "--cache-dir", place}), w.here());
  const Outcome first = one.finish(), second = two.finish();
  for (const Outcome* o : {&first, &second}) {
    INFO(o->err);
    CHECK(o->code == 0);
    CHECK(!says(o->err, "warning"));
  }
  CHECK(entries_in(place) == 6);
  CHECK(fs::is_empty(place + "/incoming"));
  const Outcome plain = run(w.train("plain"), w.here());
  CHECK(plain.code == 0);
  // Times apart, what they have learned is equal.
  const auto figures = [&](const std::string& name) {
    const std::string text = content(w / ("runs/" + name + "/results.csv"));
    const std::string row = text.substr(text.find('\n') + 1);
    return row.substr(row.find(',', row.find(',') + 1));
  };
  CHECK(figures("one") == figures("plain"));
  CHECK(figures("two") == figures("plain"));
}
