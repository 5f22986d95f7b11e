#include "data/download/fetch.h"

#include <fmt/format.h>
#include <nettle/version.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "data/download/curl_api.h"
#include "data/download/part_file.h"
#include "data/download/sha256.h"
#include "data/download/transfer.h"
#include "tensor/base/check.h"
#include "tensor/base/file.h"
#include "tensor/base/interrupt.h"

namespace tessera {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int64_t kProgressBytes = int64_t(1) << 20;  // an attempt that brought so much was a good one
constexpr double kLongestWait = 60;

bool is_control(char c) { return uint8_t(c) < 32 || c == 127; }

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

struct ExpectedSum {
  std::string hex, from;
};

// "HEX  NAME", as sha256sum writes it.
std::optional<ExpectedSum> expected_sum(const FetchRequest& request) {
  if (!request.sha256.empty()) return ExpectedSum{normalized_sha256(request.sha256), request.sha256_from};
  const fs::path file = sum_file_of(request.to);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  const std::string hex = read_file(file, 4096).substr(0, 64);
  if (!is_sha256(hex)) throw Error(ErrorCode::kData, "this does not begin with a SHA-256", {file.string()}, "correct or remove it");
  return ExpectedSum{normalized_sha256(hex), file.string()};
}

void make_folder(const fs::path& folder) {
  if (folder.empty()) return;
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw_file_error("make the folder", folder, failed.value());
}

[[noreturn]] void interrupted(const FetchRequest& request, const PartFile& part) {
  const std::string of = part.origin().total >= 0 ? fmt::format(" of {}", part.origin().total) : "";
  throw Error(ErrorCode::kInterrupted, fmt::format("interrupted; {}{} bytes are in {}", part.size(), of, part.path().string()), {},
              "go on with: " + request.again);
}

void wait(double seconds) {
  for (const auto start = Clock::now(); seconds_since(start) < seconds && !interrupt_requested();) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

struct Completion {
  int64_t resumed_from = 0;  // bytes of an earlier sitting
  bool one_piece = false;    // all of it is of one answer
};

// Until the part is the whole file.
Completion complete(const Url& url, const FetchRequest& request, PartFile& part) {
  Completion out{.resumed_from = part.size()};
  const auto log = [&](const std::string& text) {
    if (request.log) request.log(text);
  };
  if (part.size() > 0) log(fmt::format("{}: goes on after {} bytes", part.path().string(), part.size()));
  int failures = 0, changes = 0;
  while (!part.complete()) {
    const int64_t before = part.size();
    TransferOptions options{.timeout_s = request.timeout_s, .progress = {}};
    if (request.progress) {
      options.progress = [&](int64_t done, int64_t total) { request.progress(done, total, std::min(out.resumed_from, done)); };
    }
    const TransferResult result = transfer(url, part, options);
    out.one_piece = result.from_start;
    if (result.from_start || result.ending == TransferEnding::kChanged) out.resumed_from = 0;
    if (result.from_start && before > 0)
      log(fmt::format("{}: the server does not go on, or has another file now; all of it is fetched", url.shown));
    if (result.ending == TransferEnding::kComplete) break;
    if (interrupt_requested()) {
      part.sync();
      interrupted(request, part);
    }
    if (result.ending == TransferEnding::kChanged) {
      if (++changes > 2) {
        throw Error(ErrorCode::kIo, "the server does not answer twice with the same file", {url.shown}, "try again later");
      }
      log(fmt::format("{}: the file on the server is another one now; all of it is fetched", url.shown));
      part.begin({url.shown, {}, -1});
      continue;
    }
    part.sync();
    failures = part.size() - before >= kProgressBytes ? 1 : failures + 1;
    if (failures > request.retries) {
      const std::string of = part.size() > 0 ? fmt::format("; {} bytes are in {}", part.size(), part.path().string()) : "";
      throw Error(ErrorCode::kIo, result.why + of, {url.shown}, "go on with: " + request.again);
    }
    const double pause =
        std::min(kLongestWait, std::max(result.wait_s, request.first_wait_s * double(1 << std::min(failures - 1, 10))));
    log(fmt::format("{}: {}; attempt {} of {} in {:.3g} s", url.shown, result.why, failures, request.retries, pause));
    wait(pause);
    if (interrupt_requested()) interrupted(request, part);
  }
  return out;
}

FetchResult taken_as_it_is(const FetchRequest& request, const std::optional<ExpectedSum>& expected, FetchResult result) {
  result.already_there = true;
  result.bytes = int64_t(fs::file_size(request.to));
  result.sha256 = sha256_of(request.to);
  result.verified = expected.has_value();
  if (expected && expected->hex != result.sha256) {
    throw Error(ErrorCode::kData,
                fmt::format("a file of this name is there, with SHA-256 {}; expected is {} ({})", result.sha256, expected->hex,
                            expected->from),
                {request.to.string()}, "move it away, or choose another place with --to; nothing was fetched");
  }
  return result;
}

}  // namespace

bool has_download() { return true; }
std::string describe_download() {
  return fmt::format("{}, nettle {}.{}", describe_curl_api(), NETTLE_VERSION_MAJOR, NETTLE_VERSION_MINOR);
}

Url parse_url(const std::string& text) {
  const CurlApi& curl = curl_api();
  const std::unique_ptr<CURLU, void (*)(CURLU*)> url(curl.url(), curl.url_cleanup);
  const auto part = [&](CURLUPart what, unsigned flags = 0) {
    char* value = nullptr;
    if (curl.url_get(url.get(), what, &value, flags) != CURLUE_OK) return std::string();
    const std::unique_ptr<char, void (*)(void*)> owner(value, curl.free);
    return std::string(value);
  };
  const CURLUcode code = curl.url_set(url.get(), CURLUPART_URL, text.c_str(), CURLU_NON_SUPPORT_SCHEME | CURLU_URLENCODE);
  const bool whole = text.find('\0') == std::string::npos;  // else the library has read its beginning
  Url out;
  out.scheme = code == CURLUE_OK && whole ? part(CURLUPART_SCHEME) : "";
  out.text = part(CURLUPART_URL);
  const bool of_this_machine = out.scheme == "file" && out.text.starts_with("file:///");  // "file:name" becomes "file://name"
  const bool shows = std::none_of(out.text.begin(), out.text.end(), is_control);          // the host's name stands there decoded
  if (!shows || (out.scheme != "http" && out.scheme != "https" && !of_this_machine)) {
    throw Error(ErrorCode::kUsage, fmt::format("'{}' is no address that can be fetched", text), {},
                "it begins with https://, http:// or file:///");
  }
  out.path = part(CURLUPART_PATH, CURLU_URLDECODE);
  out.file_name = out.path.substr(out.path.rfind('/') == std::string::npos ? 0 : out.path.rfind('/') + 1);
  const bool unfit = out.file_name == "." || out.file_name == ".." || out.file_name.size() > 200 ||
                     std::any_of(out.file_name.begin(), out.file_name.end(), is_control);
  if (unfit) out.file_name.clear();
  if (!part(CURLUPART_PASSWORD).empty()) curl.url_set(url.get(), CURLUPART_PASSWORD, "***", 0);
  out.shown = part(CURLUPART_URL);
  return out;
}

FetchResult fetch(const FetchRequest& request) {
  const Url url = parse_url(request.url);
  const std::optional<ExpectedSum> expected = expected_sum(request);
  FetchResult result{.url = url.shown, .path = request.to, .sha256 = {}, .sha256_from = expected ? expected->from : ""};
  if (fs::exists(request.to)) {
    if (!fs::is_regular_file(request.to)) throw_file_error("write", request.to, fs::is_directory(request.to) ? EISDIR : EEXIST);
    return taken_as_it_is(request, expected, result);
  }
  make_folder(request.to.parent_path());
  const auto start = Clock::now();
  PartFile part(request.to, url.shown);
  for (bool once_more = false;; once_more = true) {
    const Completion done = complete(url, request, part);
    result.resumed_from = done.resumed_from;
    result.sha256 = part.sha256();
    if (!expected || result.sha256 == expected->hex) break;
    if (done.one_piece || once_more) {
      throw Error(
          ErrorCode::kData,
          fmt::format("what came has the SHA-256 {}, expected is {} ({})", result.sha256, expected->hex, expected->from),
          {url.shown},
          fmt::format("nothing was put at {}; what came is kept as {} and taken over once {} has its sum or is gone; else it is "
                      "fetched anew",
                      request.to.string(), part.path().string(), expected->from));
    }
    if (request.log)
      request.log(fmt::format("{}: the pieces together have another SHA-256 than expected; all is fetched once more", url.shown));
    part.begin({url.shown, {}, -1});
  }
  result.bytes = part.size();
  result.verified = expected.has_value();
  part.commit();
  if (!expected) write_file_atomic(sum_file_of(request.to), fmt::format("{}  {}\n", result.sha256, request.to.filename().string()));
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace tessera
