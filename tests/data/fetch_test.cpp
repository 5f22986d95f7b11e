// Files over a real connection to a server that does what servers do: cut, change, lie, send elsewhere, say nothing.
#include "data/download/fetch.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "data/download/part_file.h"
#include "data/download/sha256.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"
#include "tests/data/support.h"
#include "tests/support/error_of.h"
#include "tests/support/http_server.h"

using namespace tessera;
using tessera::testing::error_of;
using tessera::testing::says_in_full;
using namespace tessera::test;
namespace fs = std::filesystem;

namespace {

std::string random_text(size_t size, uint64_t seed = 1) {
  Rng rng(seed, RngPurpose::kTest);
  std::string out(size, '\0');
  for (char& c : out) c = char(rng.next_u32());
  return out;
}

std::string sum_of(std::string_view text) {
  Sha256 sum;
  sum.update(std::as_bytes(std::span(text)));
  return sum.hex();
}

// A server of one file, and a folder to fetch it into.
struct Fixture {
  Fixture() {
    // Proxies of the machine must not stand between the test and its server.
    for (const char* name : {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"})
      unsetenv(name);
  }

  TempFolder folder;
  ServedFile file{.content = random_text(300'000), .modified = {}, .date = {}};
  HttpServer server{[this](const HttpRequest& request) { return file.reply(request); }};
  std::vector<std::string> log;

  fs::path goal() const { return folder.path() / "sub" / "set.zip"; }
  fs::path part() const { return folder.path() / "sub" / "set.zip.part"; }
  FetchRequest request(std::string_view path = "/a/set.zip") {
    FetchRequest r;
    r.url = server.url(path);
    r.to = goal();
    r.sha256_from = "--sha256";
    r.again = "tessera download AGAIN";
    r.timeout_s = 20;
    r.retries = 0;
    r.first_wait_s = 0.01;
    r.log = [this](const std::string& text) { log.push_back(text); };
    return r;
  }
  // The first answer is cut, the next ones are whole.
  void cut_first(int64_t after) {
    server.handle([this, after, first = true](const HttpRequest& request) mutable {
      HttpReply reply = file.reply(request);
      if (std::exchange(first, false)) reply.cut_after = after;
      return reply;
    });
  }
  // A part of `after` bytes lies there, as a run leaves it whose connection was cut.
  void leave_part(int64_t after) {
    cut_first(after);
    const Error e = error_of([&] { fetch(request()); });
    CHECK(e.code() == ErrorCode::kIo);
    CHECK(says_in_full(e, "tessera download AGAIN"));
    CHECK(!fs::exists(goal()));
    CHECK(read_file(part()) == file.content.substr(0, size_t(after)));
    log.clear();
  }
  void check_done(const FetchResult& result, int64_t resumed_from) {
    CHECK(read_file(goal()) == file.content);
    CHECK(result.bytes == int64_t(file.content.size()));
    CHECK(result.sha256 == sum_of(file.content));
    CHECK(result.resumed_from == resumed_from);
    CHECK(!fs::exists(part()));
    CHECK(!fs::exists(part().string() + ".json"));
  }
};

}  // namespace

TEST_CASE("SHA-256 of what FIPS 180-2 gives the sums of") {
  CHECK(sum_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sum_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sum_of(std::string(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  Sha256 pieces;
  for (const char c : std::string("abc")) pieces.update(std::as_bytes(std::span(&c, 1)));
  CHECK(pieces.hex() == sum_of("abc"));
  CHECK(pieces.hex() == sum_of("abc"));  // asking changes nothing
  const TempFolder folder;
  CHECK(sha256_of(folder.write("a", "abc")) == sum_of("abc"));
}

TEST_CASE("addresses: what can be fetched, the name of the file, no password in what is shown") {
  CHECK(parse_url("https://host.org/a/b/set.zip?x=1#y").file_name == "set.zip");
  CHECK(parse_url("http://host.org/a/my%20set.zip").file_name == "my set.zip");
  CHECK(parse_url("file:///tmp/set.zip").scheme == "file");
  for (const char* unfit :
       {"https://host.org/", "https://host.org", "https://host.org/a/", "https://host.org/a%0Ab", "https://host.org/%2e%2e"}) {
    CAPTURE(unfit);
    CHECK(parse_url(unfit).file_name.empty());
  }
  CHECK(parse_url("https://host.org/a%2Fb.zip").file_name == "b.zip");
  const Url secret = parse_url("https://me:word@host.org/x.zip");
  CHECK(secret.shown == "https://me:***@host.org/x.zip");
  CHECK(secret.text == "https://me:word@host.org/x.zip");
  for (const char* bad : {"ftp://host.org/x", "host.org/x.zip", "/tmp/x.zip", "https://", "scp://a/b", "javascript:1", "file:x.zip",
                          "file://host/x.zip", ""}) {
    CAPTURE(bad);
    CHECK(error_of([&] { parse_url(bad); }).code() == ErrorCode::kUsage);
  }
  CHECK(error_of([&] { parse_url(std::string("https://host.org/x.zip") + '\0' + "y"); }).code() ==
        ErrorCode::kUsage);  // a yaml may hold it
}

TEST_CASE("a file is fetched whole; without a known sum its own is kept for the next time") {
  Fixture f;
  int64_t last = 0, total = 0;
  FetchRequest r = f.request();
  r.progress = [&](int64_t done, int64_t all, int64_t) { last = done, total = all; };
  const FetchResult result = fetch(r);
  f.check_done(result, 0);
  CHECK(!result.verified);
  CHECK(!result.already_there);
  CHECK(last == total);
  CHECK(total == 300'000);
  CHECK(read_file(f.goal().string() + ".sha256") == sum_of(f.file.content) + "  set.zip\n");
  REQUIRE(f.server.requests().size() == 1);
  CHECK(f.server.requests()[0].header("range").empty());
  CHECK(f.server.requests()[0].target == "/a/set.zip");

  SUBCASE("once more: nothing is fetched, the file is compared") {
    const FetchResult again = fetch(f.request());
    CHECK(again.already_there);
    CHECK(again.verified);
    CHECK(f.server.requests().size() == 1);
  }
  SUBCASE("removed, and the server has another one now") {
    fs::remove(f.goal());
    f.file.content = random_text(1000, 2);
    const Error e = error_of([&] { fetch(f.request()); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(says_in_full(e, "set.zip.sha256"));
    CHECK(says_in_full(e, sum_of(f.file.content)));
    CHECK(!fs::exists(f.goal()));
  }
  SUBCASE("what is there is never replaced") {
    write_file_atomic(f.goal(), "mine");
    const Error e = error_of([&] { fetch(f.request()); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(says_in_full(e, sum_of("mine")));
    CHECK(read_file(f.goal()) == "mine");
    fs::remove(f.goal().string() + ".sha256");
    const FetchResult as_it_is = fetch(f.request());
    CHECK(as_it_is.already_there);
    CHECK(!as_it_is.verified);
    CHECK(read_file(f.goal()) == "mine");
    CHECK(f.server.requests().size() == 1);
  }
}

TEST_CASE("a sum that was given is compared; another one leaves no file, and what came is not lost") {
  Fixture f;
  FetchRequest r = f.request();
  r.sha256 = sum_of(f.file.content);
  for (char& c : r.sha256) c = char(toupper(c));
  SUBCASE("right") {
    const FetchResult result = fetch(r);
    f.check_done(result, 0);
    CHECK(result.verified);
    CHECK(!fs::exists(f.goal().string() + ".sha256"));
  }
  SUBCASE("wrong, then right") {
    const std::string right = std::exchange(r.sha256, std::string(64, '0'));
    const Error e = error_of([&] { fetch(r); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(says_in_full(e, std::string(64, '0') + " (--sha256)"));
    CHECK(says_in_full(e, sum_of(f.file.content)));
    CHECK(!fs::exists(f.goal()));
    CHECK(fs::file_size(f.part()) == f.file.content.size());
    r.sha256 = right;
    const FetchResult result = fetch(r);
    CHECK(result.verified);
    f.check_done(result, 300'000);
    CHECK(f.server.requests().size() == 1);  // taken over
  }
  SUBCASE("wrong twice: the second time it is fetched anew, once") {
    r.sha256 = std::string(64, '0');
    error_of([&] { fetch(r); });
    const Error e = error_of([&] { fetch(r); });
    CHECK(e.code() == ErrorCode::kData);
    CHECK(f.server.requests().size() == 2);
  }
  SUBCASE("wrong, then none: what came is taken over") {
    r.sha256 = std::string(64, '0');
    CHECK(says_in_full(error_of([&] { fetch(r); }), "taken over once --sha256 has its sum or is gone"));
    r.sha256.clear();
    f.check_done(fetch(r), 300'000);
    CHECK(f.server.requests().size() == 1);
  }
  SUBCASE("wrong, over a connection that is cut each time: fetched anew once, not for ever") {
    r.sha256 = std::string(64, '0');
    r.retries = 1;
    int answers = 0;
    f.server.handle([&](const HttpRequest& request) {
      if (++answers > 8) return HttpReply{.status = 404, .headers = {}, .body = {}};
      HttpReply reply = f.file.reply(request);
      if (request.header("range").empty()) reply.cut_after = 100'000;
      return reply;
    });
    CHECK(error_of([&] { fetch(r); }).code() == ErrorCode::kData);
    CHECK(answers == 4);
  }
}

TEST_CASE("a cut connection: the rest is asked for, in the same run and in a later one") {
  Fixture f;
  SUBCASE("in the same run") {
    f.cut_first(123'456);
    FetchRequest r = f.request();
    r.retries = 1;
    f.check_done(fetch(r), 0);
    REQUIRE(f.log.size() == 1);
    CHECK(f.log[0].find("attempt 1 of 1") != std::string::npos);
  }
  SUBCASE("later") {
    f.leave_part(123'456);
    f.check_done(fetch(f.request()), 123'456);
    CHECK(f.log.at(0).find("goes on after 123456 bytes") != std::string::npos);
  }
  const auto requests = f.server.requests();
  REQUIRE(requests.size() == 2);
  CHECK(requests[1].header("range") == "bytes=123456-");
  CHECK(requests[1].header("if-range") == "\"v1\"");
}

TEST_CASE("cuts in a row: given up when they bring nothing, never while they do") {
  Fixture f;
  f.file.content = random_text(size_t(5) << 20);
  int answers = 0;
  f.server.handle([&](const HttpRequest& request) {
    ++answers;
    HttpReply reply = f.file.reply(request);
    reply.cut_after = int64_t(1) << 20;
    return reply;
  });
  FetchRequest r = f.request();
  r.retries = 1;
  f.check_done(fetch(r), 0);
  CHECK(answers == 5);
  fs::remove(f.goal());
  fs::remove(f.goal().string() + ".sha256");
  answers = 0;
  f.server.handle([&](const HttpRequest& request) {
    ++answers;
    HttpReply reply = f.file.reply(request);
    reply.cut_after = 1000;
    return reply;
  });
  r.retries = 3;
  const Error e = error_of([&] { fetch(r); });
  CHECK(e.code() == ErrorCode::kIo);
  CHECK(says_in_full(e, "4000 bytes are in"));
  CHECK(answers == 4);
}

TEST_CASE("pieces of two files are never joined") {
  Fixture f;
  f.leave_part(100'000);
  const std::string before = f.file.content;
  f.file.content = random_text(300'000, 2);
  SUBCASE("another ETag, and a server that heeds it") { f.file.etag = "\"v2\""; }
  SUBCASE("another ETag, and a server that sends the rest of the new file all the same") {
    f.file.etag = "\"v2\"";
    f.file.obeys_if_range = false;
  }
  SUBCASE("another length") {
    f.file.content += "more";
    f.file.obeys_if_range = false;
  }
  SUBCASE("shorter than what is there") {
    f.file.content.resize(50'000);
    f.file.obeys_if_range = false;
  }
  SUBCASE("a server that knows no ranges") { f.file.ranges = false; }
  SUBCASE("another address for the same name") {
    const FetchResult result = fetch(f.request("/b/set.zip"));
    f.check_done(result, 0);
    CHECK(f.server.requests().back().header("range").empty());
    return;
  }
  SUBCASE("a server that lies about its ETag: only the sum can tell") {
    FetchRequest r = f.request();
    r.sha256 = sum_of(f.file.content);
    f.check_done(fetch(r), 0);
    return;
  }
  f.check_done(fetch(f.request()), 0);
  CHECK(f.server.requests().at(1).header("range") == "bytes=100000-");
  CHECK(!f.log.empty());
}

TEST_CASE("what tells one version from another: strong ETags, and times that are over") {
  Fixture f;
  const std::string noon = "Fri, 27 Nov 2026 12:00:00 GMT", later = "Fri, 27 Nov 2026 12:00:01 GMT";
  std::string expected;
  f.file.etag = "";
  SUBCASE("an earlier time") {
    f.file.modified = noon, f.file.date = later;
    expected = noon;
  }
  SUBCASE("the time of the very second") { f.file.modified = noon, f.file.date = noon; }
  SUBCASE("no clock") { f.file.modified = noon; }
  SUBCASE("a weak ETag") { f.file.etag = "W/\"v1\""; }
  SUBCASE("a weak ETag and a time") {
    f.file.etag = "W/\"v1\"";
    f.file.modified = noon, f.file.date = later;
    expected = noon;
  }
  SUBCASE("nothing") {}
  f.leave_part(100'000);
  f.check_done(fetch(f.request()), expected.empty() ? 0 : 100'000);
  CHECK(f.server.requests().back().header("if-range") == expected);
  CHECK(f.server.requests().back().header("range") == (expected.empty() ? "" : "bytes=100000-"));
}

TEST_CASE("after a power cut only what was synced counts") {
  Fixture f;
  f.leave_part(100'000);
  const fs::path note = f.part().string() + ".json";
  nlohmann::json j = nlohmann::json::parse(read_file(note));
  j["synced"] = 60'000;
  write_file_atomic(note, j.dump());
  write_file_atomic(f.part(), f.file.content.substr(0, 60'000) + std::string(70'000, '\0'));
  SUBCASE("the rest may be anything") { f.check_done(fetch(f.request()), 60'000); }
  SUBCASE("a new file that is shorter than what lies there") {
    f.file.etag = "\"v2\"";
    f.file.content.resize(1000);
    f.check_done(fetch(f.request()), 0);
  }
  SUBCASE("a damaged note: from the start") {
    nlohmann::json odd = j;
    odd["synced"] = 1e300;
    for (const std::string& text :
         {std::string(), std::string("{}"), std::string("[1]"), std::string("{\"url\":1}"), std::string("{\"url\":"), odd.dump()}) {
      CAPTURE(text);
      write_file_atomic(note, text);
      write_file_atomic(f.part(), "x");
      fs::remove(f.goal());
      f.check_done(fetch(f.request()), 0);
    }
  }
}

TEST_CASE("lengths: unknown, nothing, too long") {
  Fixture f;
  SUBCASE("unknown") {
    f.server.handle([&](const HttpRequest& request) {
      HttpReply reply = f.file.reply(request);
      reply.says_length = false;
      return reply;
    });
    f.check_done(fetch(f.request()), 0);
  }
  SUBCASE("an empty file") {
    f.file.content.clear();
    f.check_done(fetch(f.request()), 0);
  }
  SUBCASE("the server states more than it has") {
    f.server.handle([&](const HttpRequest& request) {
      HttpReply reply = f.file.reply(request);
      if (reply.status == 200) reply.stated_length = 400'000;
      return reply;
    });
    FetchRequest r = f.request();
    r.retries = 5;
    const Error e = error_of([&] { fetch(r); });
    CHECK(e.code() == ErrorCode::kIo);
    CHECK(!fs::exists(f.goal()));
  }
  SUBCASE("more than the disk has room for") {
    f.server.handle([&](const HttpRequest& request) {
      HttpReply reply = f.file.reply(request);
      reply.stated_length = int64_t(1) << 60;
      return reply;
    });
    const Error e = error_of([&] { fetch(f.request()); });
    CHECK(e.code() == ErrorCode::kIo);
    CHECK(says_in_full(e, "there is room for"));
  }
}

TEST_CASE("answers that are no file: what, where, what to do") {
  Fixture f;
  struct Row {
    int status;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string said;
    size_t requests;
  };
  for (const Row& row : std::vector<Row>{{404, {}, "404 (check the address", 1},
                                         {403, {}, "403 (it wants to know who asks", 1},
                                         {204, {}, "the server answers 204", 1},
                                         {503, {}, "503", 3},
                                         {429, {}, "429", 3},
                                         {302, {}, "302 without saying where", 1},
                                         {200, {{"Content-Type", "text/html; charset=utf-8"}}, "a web page, not a file", 1},
                                         {302, {{"Location", "file:///etc/passwd"}}, "file:///etc/passwd, which is not as safe", 1},
                                         {302, {{"Location", "/a/set.zip"}}, "more than 10 times", 11}}) {
    CAPTURE(row.said);
    const size_t before = f.server.requests().size();
    f.server.handle(
        [&](const HttpRequest&) { return HttpReply{.status = row.status, .headers = row.headers, .body = "<html>sorry</html>"}; });
    FetchRequest r = f.request();
    r.retries = 2;
    const Error e = error_of([&] { fetch(r); });
    CHECK(e.code() == (row.status == 200 ? ErrorCode::kData : ErrorCode::kIo));
    CHECK(says_in_full(e, row.said));
    CHECK(says_in_full(e, r.url));
    CHECK(f.server.requests().size() - before == row.requests);
    CHECK(fs::is_empty(f.folder.path() / "sub"));
  }
}

TEST_CASE("a server that is back after a while, and one that sends elsewhere") {
  Fixture f;
  SUBCASE("back") {
    f.server.handle([&, failures = 2](const HttpRequest& request) mutable {
      return failures-- > 0 ? HttpReply{.status = 503, .headers = {{"Retry-After", "0"}}, .body = "later"} : f.file.reply(request);
    });
  }
  SUBCASE("elsewhere") {
    f.server.handle([&](const HttpRequest& request) {
      if (request.target == "/a/set.zip")
        return HttpReply{.status = 302, .headers = {{"Location", f.server.url("/b")}}, .body = "moved"};
      if (request.target == "/b") return HttpReply{.status = 307, .headers = {{"Location", "c?d=1"}}, .body = {}};
      return f.file.reply(request);
    });
  }
  FetchRequest r = f.request();
  r.retries = 2;
  f.check_done(fetch(r), 0);
  CHECK(f.server.requests().size() == 3);
}

TEST_CASE("nobody there: no server, no answer, no file") {
  Fixture f;
  std::string closed;
  {
    closed = HttpServer([](const HttpRequest&) { return HttpReply{}; }).url("/x.zip");
  }
  FetchRequest r = f.request();
  r.timeout_s = 1;
  SUBCASE("no server") { r.url = closed; }
  SUBCASE("no file") { r.url = "file://" + (f.folder.path() / "none.zip").string(); }
  SUBCASE("no answer") {
    f.server.handle([](const HttpRequest&) { return HttpReply{.headers = {}, .body = {}, .silent = true}; });
  }
  SUBCASE("an answer that stops") {
    f.server.handle([&](const HttpRequest& request) {
      HttpReply reply = f.file.reply(request);
      reply.cut_after = 0, reply.holds = true;
      return reply;
    });
  }
  SUBCASE("a closed connection for an answer") {
    f.server.handle([](const HttpRequest&) { return HttpReply{.headers = {}, .body = {}, .hangs_up = true}; });
  }
  const auto start = std::chrono::steady_clock::now();
  const Error e = error_of([&] { fetch(r); });
  CHECK(e.code() == ErrorCode::kIo);
  CHECK(says_in_full(e, parse_url(r.url).shown));
  CHECK(!e.hint().empty());
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
  CHECK(!fs::exists(f.goal()));
}

TEST_CASE("a file URL, and its absence of doubt: always from the start") {
  Fixture f;
  const fs::path source = f.folder.write("there/set.zip", f.file.content);
  FetchRequest r = f.request();
  SUBCASE("a file") {
    r.url = "file://" + source.string();
    f.check_done(fetch(r), 0);
  }
  SUBCASE("a folder is no empty file, and nobody waits for a pipe") {
    const fs::path pipe = f.folder.path() / "there/my pipe";
    REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
    for (const std::string& other : {source.parent_path().string(), f.folder.path().string() + "/there/my%20pipe"}) {
      CAPTURE(other);
      r.url = "file://" + other;
      const Error e = error_of([&] { fetch(r); });
      CHECK(e.code() == ErrorCode::kIo);
      CHECK(says_in_full(e, "this is a folder, a pipe or a device"));
      CHECK(!fs::exists(f.goal()));
      CHECK(!fs::exists(f.part()));
    }
  }
  CHECK(f.server.requests().empty());
}

TEST_CASE("a proxy of the environment is asked") {
  Fixture f;
  setenv("http_proxy", f.server.url("").c_str(), 1);
  FetchRequest r = f.request();
  r.url = "http://no.such.host.invalid/set.zip";
  f.check_done(fetch(r), 0);
  unsetenv("http_proxy");
  REQUIRE(f.server.requests().size() == 1);
  CHECK(f.server.requests()[0].target == "http://no.such.host.invalid/set.zip");
}

TEST_CASE("a signal: the part stays, and the rest is fetched later") {
  Fixture f;
  f.server.handle([&](const HttpRequest& request) {
    HttpReply reply = f.file.reply(request);
    reply.cut_after = 100'000, reply.holds = true;
    return reply;
  });
  FetchRequest r = f.request();
  r.progress = [](int64_t done, int64_t, int64_t) {
    if (done == 100'000) request_interrupt();
  };
  const Error e = error_of([&] { fetch(r); });
  clear_interrupt();
  CHECK(e.code() == ErrorCode::kInterrupted);
  CHECK(says_in_full(e, "100000 of 300000 bytes are in " + f.part().string()));
  CHECK(says_in_full(e, "go on with: tessera download AGAIN"));
  f.server.handle([&](const HttpRequest& request) { return f.file.reply(request); });
  f.check_done(fetch(f.request()), 100'000);
}

TEST_CASE("one process at a time; links and pipes under the part's name are not written through") {
  Fixture f;
  fs::create_directories(f.goal().parent_path());
  SUBCASE("another process") {
    PartFile other(f.goal(), "http://x/");
    const Error e = error_of([&] { fetch(f.request()); });
    CHECK(e.code() == ErrorCode::kUsage);
    CHECK(says_in_full(e, "another process"));
  }
  SUBCASE("a link") {
    const fs::path precious = f.folder.write("precious", "mine");
    fs::create_symlink(precious, f.part());
    CHECK(error_of([&] { fetch(f.request()); }).code() == ErrorCode::kIo);
    CHECK(read_file(precious) == "mine");
  }
  SUBCASE("a folder of the goal's name") {
    fs::create_directories(f.goal());
    CHECK(error_of([&] { fetch(f.request()); }).code() == ErrorCode::kIo);
  }
  CHECK(f.server.requests().empty());
}

TEST_CASE("a failure before anything came leaves the part of another address") {
  Fixture f;
  f.leave_part(100'000);
  f.server.handle([](const HttpRequest&) { return HttpReply{.status = 404, .headers = {}, .body = {}}; });
  CHECK(error_of([&] { fetch(f.request("/b/set.zip")); }).code() == ErrorCode::kIo);
  f.server.handle([&](const HttpRequest& request) { return f.file.reply(request); });
  f.check_done(fetch(f.request()), 100'000);
}
