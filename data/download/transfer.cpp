#include "data/download/transfer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string_view>

#include "data/download/curl_api.h"
#include "tensor/base/check.h"
#include "tensor/base/interrupt.h"

namespace tessera {

namespace fs = std::filesystem;

namespace {

constexpr int kMaxRedirects = 10;
constexpr long kHttp = CURLPROTO_HTTP | CURLPROTO_HTTPS;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  return out;
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::optional<int64_t> number(std::string_view text) {
  int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size() || n < 0) return std::nullopt;
  return n;
}

struct ContentRange {
  int64_t first = -1, total = -1;
};

ContentRange content_range(std::string_view text) {  // "bytes 100-199/200", the length may be "*"
  ContentRange range;
  const size_t dash = text.find('-'), slash = text.find('/');
  if (!text.starts_with("bytes ") || dash == std::string_view::npos || slash == std::string_view::npos) return range;
  range.first = number(trimmed(text.substr(6, dash - 6))).value_or(-1);
  range.total = number(trimmed(text.substr(slash + 1))).value_or(-1);
  return range;
}

bool another_attempt_may_help(long status) {
  return status == 408 || status == 425 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

std::string remedy_of_status(long status) {
  switch (status) {
    case 401:
    case 403: return "it wants to know who asks: https://USER:PASSWORD@host/..., or fetch the file with a browser";
    case 404:
    case 410: return "check the address: files move from release to release";
    case 407: return "the proxy wants a password: http_proxy or https_proxy as http://USER:PASSWORD@host:port";
    case 429: return "too many requests came from here: wait before the next attempt";
    default: return status >= 500 ? "the server has a fault of its own: try again later" : "check the address with a browser";
  }
}

std::string remedy_of(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY: return "check http_proxy, https_proxy and all_proxy in the environment";
    case CURLE_COULDNT_RESOLVE_HOST:
      return "check the address, and that this machine has a network and a name server; behind a proxy set https_proxy";
    case CURLE_COULDNT_CONNECT: return "check address and port, and whether a firewall wants a proxy: https_proxy=http://host:port";
    case CURLE_OPERATION_TIMEDOUT: return "--timeout waits longer; behind a firewall set https_proxy=http://host:port";
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
      return "the server could not prove who it is: check clock and address; install ca-certificates, or name the file of your own "
             "authority in SSL_CERT_FILE";
    case CURLE_FILE_COULDNT_READ_FILE: return "check the path and its permissions";
    default: return "try again; the address opened with a browser may tell more";
  }
}

bool is_cut(CURLcode code) {
  return code == CURLE_PARTIAL_FILE || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR || code == CURLE_OPERATION_TIMEDOUT ||
         code == CURLE_GOT_NOTHING || code == CURLE_HTTP2 || code == CURLE_HTTP2_STREAM || code == CURLE_ABORTED_BY_CALLBACK;
}

class Transfer {
 public:
  Transfer(const Url& url, PartFile& part, const TransferOptions& options)
      : url_(url),
        part_(part),
        options_(options),
        first_(part.origin().validator.empty() ? 0 : part.size()),
        easy_(curl_.easy_init(), curl_.easy_cleanup) {
    if (!easy_) throw Error(ErrorCode::kMemory, "libcurl has no memory", {}, "close other programs");
  }

  TransferResult run() {
    if (url_.scheme == "file") check_local();
    std::string address = url_.text;
    CURLcode code = CURLE_OK;
    for (int hops = 0;; ++hops) {
      code = perform(address, hops > 0);
      const long answer = status();
      if (code != CURLE_OK || answer < 300 || answer > 399) break;
      address = redirect(address, hops);
    }
    if (failure_) std::rethrow_exception(failure_);
    TransferResult result = changed_           ? TransferResult{.ending = TransferEnding::kChanged, .why = {}}
                            : code == CURLE_OK ? answered()
                                               : failed(code);
    result.from_start = began_ && status() != 206;
    return result;
  }

 private:
  CURLcode perform(const std::string& address, bool redirected) {
    headers_.clear();
    error_[0] = '\0';
    set(CURLOPT_URL, address.c_str());
    set(CURLOPT_PROTOCOLS, redirected ? kHttp : kHttp | CURLPROTO_FILE);
    set(CURLOPT_FOLLOWLOCATION, 0L);  // by hand, to see each step
    set(CURLOPT_USERAGENT, "tessera");
    for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE"}) {  // as the program curl; the library alone does not look there
      if (const char* const file = std::getenv(name); file != nullptr && *file != '\0') set(CURLOPT_CAINFO, file);
    }
    set(CURLOPT_CONNECTTIMEOUT_MS, long(1000 * options_.timeout_s));
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, long(std::ceil(options_.timeout_s)));
    set(CURLOPT_BUFFERSIZE, 256L << 10);
    set(CURLOPT_ERRORBUFFER, error_);
    set(CURLOPT_HEADERFUNCTION, &on_header);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_WRITEFUNCTION, &on_body);
    set(CURLOPT_WRITEDATA, this);
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &on_progress);
    set(CURLOPT_XFERINFODATA, this);
    // Without the same validator the server sends all of it, not the rest of another file.
    const std::string condition = "If-Range: " + part_.origin().validator, range = fmt::format("{}-", first_);
    curl_slist* const list = first_ > 0 ? curl_.slist_append(nullptr, condition.c_str()) : nullptr;
    const std::unique_ptr<curl_slist, void (*)(curl_slist*)> owner(list, curl_.slist_free_all);
    if (first_ > 0) set(CURLOPT_RANGE, range.c_str());
    set(CURLOPT_HTTPHEADER, list);
    const CURLcode code = curl_.easy_perform(easy_.get());
    set(CURLOPT_HTTPHEADER, static_cast<curl_slist*>(nullptr));
    return code;
  }

  template <class T>
  void set(CURLoption option, T value) {
    const CURLcode code = curl_.easy_setopt(easy_.get(), option, value);
    TESSERA_CHECK(code == CURLE_OK, "libcurl refuses option {}: {}", int(option), curl_.easy_strerror(code));
  }
  template <class T>
  T info(CURLINFO what) const {
    T value{};
    curl_.easy_getinfo(easy_.get(), what, &value);
    return value;
  }
  long status() const { return info<long>(CURLINFO_RESPONSE_CODE); }  // 0 of a file URL

  std::string redirect(const std::string& from, int hops) const {
    const char* const to = info<char*>(CURLINFO_REDIRECT_URL);
    if (to == nullptr)
      refuse(fmt::format("the server answers {} without saying where the file is", status()), "check the address with a browser");
    const Url next = parse_url(to);
    if (hops >= kMaxRedirects)
      refuse(fmt::format("sent on more than {} times, last to {}", kMaxRedirects, next.shown), "check the address with a browser");
    if (next.scheme == "file" || (from.starts_with("https:") && next.scheme != "https")) {
      refuse(fmt::format("the server sends on to {}, which is not as safe", next.shown),
             "ask for that address itself if you trust it");
    }
    return next.text;
  }

  // libcurl takes a folder for an empty file, and waits for whoever writes into a pipe.
  void check_local() const {
    std::error_code ignored;
    const fs::file_status status = fs::status(url_.path, ignored);
    if (fs::exists(status) && !fs::is_regular_file(status))
      refuse("this is a folder, a pipe or a device", "give the address of a file");
  }

  [[noreturn]] void refuse(const std::string& message, const std::string& remedy) const {
    throw Error(ErrorCode::kIo, message, {url_.shown}, remedy);
  }

  TransferResult answered() {
    const long answer = status();
    if (answer == 416 && first_ > 0) return {.ending = TransferEnding::kChanged, .why = {}};  // shorter now than what we have
    if (another_attempt_may_help(answer)) {
      return {.ending = TransferEnding::kCutOff,
              .why = fmt::format("the server answers {} ({})", answer, remedy_of_status(answer)),
              .wait_s = double(info<curl_off_t>(CURLINFO_RETRY_AFTER))};
    }
    if (!is_content(answer)) refuse(fmt::format("the server answers {}", answer), remedy_of_status(answer));
    if (!began_) begin();  // an empty file
    if (changed_) return {.ending = TransferEnding::kChanged, .why = {}};
    const int64_t total = part_.origin().total;
    if (total >= 0 && part_.size() != total) {
      return {.ending = TransferEnding::kCutOff, .why = fmt::format("the server ended after {} of {} bytes", part_.size(), total)};
    }
    return {};
  }

  TransferResult failed(CURLcode code) const {
    const std::string why = error_[0] != '\0' ? std::string(trimmed(error_)) : curl_.easy_strerror(code);
    // A server that was there before may be there again.
    const bool lost = (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST) && first_ > 0;
    if (is_cut(code) || lost) return {.ending = TransferEnding::kCutOff, .why = why + " (" + remedy_of(code) + ")"};
    refuse(why, remedy_of(code));
  }

  bool is_content(long answer) const { return answer == 0 || answer == 200 || answer == 203 || answer == 206; }

  std::string header(const char* name) const {
    const auto it = headers_.find(name);
    return it == headers_.end() ? "" : it->second;
  }

  // What the server would know this version by; empty when another version could have the same. A weak ETag may belong to several,
  // and so may a time of the very second in which it was asked (RFC 9110, 8.8.2).
  std::string validator() const {
    const std::string tag = header("etag"), modified = header("last-modified"), date = header("date");
    if (tag.starts_with('"')) return tag;
    if (modified.empty() || date.empty()) return {};
    const time_t then = curl_.getdate(modified.c_str(), nullptr), now = curl_.getdate(date.c_str(), nullptr);
    return then > 0 && now > then ? modified : "";
  }

  bool goes_on() const {
    const ContentRange range = content_range(header("content-range"));
    const PartOrigin& origin = part_.origin();
    const std::string tag = header("etag");
    const bool same_tag = tag.empty() || !origin.validator.starts_with('"') || tag == origin.validator;
    return first_ > 0 && range.first == first_ && same_tag && (range.total < 0 || origin.total < 0 || range.total == origin.total);
  }

  void begin() {
    began_ = true;
    if (status() == 206) {
      changed_ = !goes_on();
      if (!changed_) check_space(part_.origin().total);
      return;
    }
    const std::string name = lower(fs::path(url_.file_name).extension().string());
    if (header("content-type").starts_with("text/html") && name != ".html" && name != ".htm") {
      throw Error(ErrorCode::kData, "the server sends a web page, not a file", {url_.shown},
                  "open it with a browser: it may ask for a login or a confirmation; the address of the file itself is wanted");
    }
    const PartOrigin origin{url_.shown, validator(), info<curl_off_t>(CURLINFO_CONTENT_LENGTH_DOWNLOAD_T)};
    part_.begin(origin);
    check_space(origin.total);
  }

  void check_space(int64_t total) const {
    std::error_code failed;
    const auto folder = fs::absolute(part_.path()).parent_path();
    const fs::space_info space = fs::space(folder, failed);
    const int64_t needed = total - part_.size();
    if (failed || total < 0 || space.available >= uintmax_t(std::max<int64_t>(needed, 0))) return;
    throw Error(ErrorCode::kIo,
                fmt::format("{} MiB are to come, but there is room for {} MiB", needed >> 20, space.available >> 20),
                {folder.string()}, "free some space, or choose another folder");
  }

  static size_t on_header(char* data, size_t, size_t n, void* self) {
    auto& t = *static_cast<Transfer*>(self);
    const std::string_view line = trimmed({data, n});
    if (line.starts_with("HTTP/")) t.headers_.clear();  // of the answer before: of a proxy, or 100 Continue
    if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
      t.headers_[lower(trimmed(line.substr(0, colon)))] = trimmed(line.substr(colon + 1));
    }
    return n;
  }

  // No exception may pass through libcurl.
  static size_t on_body(char* data, size_t, size_t n, void* self) {
    auto& t = *static_cast<Transfer*>(self);
    try {
      if (!t.is_content(t.status())) return n;  // the text of an error or a redirect
      if (!t.began_) t.begin();
      if (t.changed_) return 0;
      t.part_.append(std::as_bytes(std::span(data, n)));
      return n;
    } catch (...) {
      t.failure_ = std::current_exception();
      return 0;
    }
  }

  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& t = *static_cast<Transfer*>(self);
    try {
      if (t.began_ && t.options_.progress) t.options_.progress(t.part_.size(), t.part_.origin().total);
    } catch (...) {
      t.failure_ = std::current_exception();
      return 1;
    }
    return interrupt_requested() ? 1 : 0;
  }

  const Url& url_;
  PartFile& part_;
  const TransferOptions& options_;
  const int64_t first_;  // byte that is asked for first
  const CurlApi& curl_ = curl_api();
  std::unique_ptr<CURL, void (*)(CURL*)> easy_;
  std::map<std::string, std::string> headers_;  // of the last answer, by lower-case name
  char error_[CURL_ERROR_SIZE] = {};
  bool began_ = false, changed_ = false;
  std::exception_ptr failure_;
};

}  // namespace

TransferResult transfer(const Url& url, PartFile& part, const TransferOptions& options) {
  return Transfer(url, part, options).run();
}

}  // namespace tessera
