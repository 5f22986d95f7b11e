// A small HTTP server on the loopback, in the test's own process, that can misbehave: cut a connection, say a wrong length, ignore
// ranges, never answer.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace tessera::test {

struct HttpRequest {
  std::string target;                          // "/a.zip", or a whole URL when the server is asked as a proxy
  std::map<std::string, std::string> headers;  // lower-case names
  std::string header(const std::string& name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

struct HttpReply {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  int64_t stated_length = -1;  // of Content-Length, instead of the true one
  bool says_length = true;
  int64_t cut_after = -1;  // bytes of the body, then the connection ends
  bool holds = false;      // ... or stays open without a word
  bool silent = false;     // not even a status line
  bool hangs_up = false;   // nor an open connection
};

// A file as a good server hands it out: Range, and If-Range with its validators.
struct ServedFile {
  std::string content;
  std::string etag = "\"v1\"";
  std::string modified;  // Last-Modified
  std::string date;      // Date
  bool ranges = true;    // false: always the whole file
  bool obeys_if_range = true;

  HttpReply reply(const HttpRequest& request) const {
    HttpReply r;
    if (!etag.empty()) r.headers.emplace_back("ETag", etag);
    if (!modified.empty()) r.headers.emplace_back("Last-Modified", modified);
    if (!date.empty()) r.headers.emplace_back("Date", date);
    const std::string range = request.header("range"), condition = request.header("if-range");
    const bool same = condition.empty() || condition == etag || condition == modified || !obeys_if_range;
    r.body = content;
    if (!ranges || !range.starts_with("bytes=") || !same) return r;
    const size_t first = std::stoul(range.substr(6));
    if (first >= content.size())
      return {.status = 416, .headers = {{"Content-Range", fmt::format("bytes */{}", content.size())}}, .body = {}};
    r.status = 206;
    r.headers.emplace_back("Content-Range", fmt::format("bytes {}-{}/{}", first, content.size() - 1, content.size()));
    r.body = content.substr(first);
    return r;
  }
};

class HttpServer {
 public:
  using Handler = std::function<HttpReply(const HttpRequest&)>;

  explicit HttpServer(Handler handler) : handler_(std::move(handler)), listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0 || pipe(stop_) != 0) {
      throw std::runtime_error("no loopback server");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~HttpServer() {
    close(stop_[1]);
    thread_.join();
    for (const int fd : held_) close(fd);
    close(stop_[0]);
    close(listener_);
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::string url(std::string_view path) const { return fmt::format("http://127.0.0.1:{}{}", port_, path); }
  void handle(Handler handler) {
    const std::lock_guard lock(mutex_);
    handler_ = std::move(handler);
  }
  std::vector<HttpRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    while (true) {
      pollfd events[2] = {{listener_, POLLIN, 0}, {stop_[0], 0, 0}};
      if (poll(events, 2, -1) < 0) continue;
      if (events[1].revents != 0) return;
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd >= 0 && !answer(fd)) close(fd);
    }
  }

  // Whether the connection stays open.
  bool answer(int fd) {
    std::string head;
    for (char buffer[4096]; head.find("\r\n\r\n") == std::string::npos;) {
      const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) return false;
      head.append(buffer, size_t(n));
    }
    HttpReply reply;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(parsed(head));
      reply = handler_(requests_.back());
    }
    if (reply.silent) return hold(fd);
    if (reply.hangs_up) return false;
    std::string text = fmt::format("HTTP/1.1 {} Word\r\nConnection: close\r\n", reply.status);
    for (const auto& [name, value] : reply.headers) text += name + ": " + value + "\r\n";
    if (reply.says_length)
      text += fmt::format("Content-Length: {}\r\n", reply.stated_length >= 0 ? reply.stated_length : int64_t(reply.body.size()));
    text += "\r\n" + reply.body.substr(0, reply.cut_after >= 0 ? size_t(reply.cut_after) : std::string::npos);
    for (size_t sent = 0; sent < text.size();) {
      const ssize_t n = send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += size_t(n);
    }
    return reply.holds && hold(fd);
  }
  bool hold(int fd) {
    held_.push_back(fd);
    return true;
  }

  static HttpRequest parsed(const std::string& head) {
    HttpRequest request;
    const size_t first = head.find(' ');
    request.target = head.substr(first + 1, head.find(' ', first + 1) - first - 1);
    for (size_t at = head.find("\r\n") + 2; at < head.size();) {
      const size_t end = head.find("\r\n", at), colon = head.find(": ", at);
      if (end == at || colon > end) break;
      std::string name = head.substr(at, colon - at);
      for (char& c : name) c = char(c >= 'A' && c <= 'Z' ? c + 32 : c);
      request.headers[name] = head.substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    return request;
  }

  mutable std::mutex mutex_;
  Handler handler_;
  std::vector<HttpRequest> requests_;
  int listener_ = -1, stop_[2] = {-1, -1};
  int port_ = 0;
  std::vector<int> held_;
  std::thread thread_;
};

}  // namespace tessera::test
