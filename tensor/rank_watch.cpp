#include "tensor/rank_watch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <random>
#include <sstream>
#include <stdexcept>

namespace tessera {

namespace {

constexpr double kBeat = 1;                            // seconds between two signs of life
constexpr char kAlive = 'b', kBye = 'q', kDied = 'd';  // kDied: followed by the rank in four bytes
constexpr size_t kTokenLength = 32;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

[[noreturn]] void fail(const char* what) { throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno))); }

// All or nothing, within the time; false: the other side is not there.
bool transfer(int socket, char* data, size_t bytes, bool out, double until) {
  while (bytes > 0) {
    pollfd p{socket, short(out ? POLLOUT : POLLIN), 0};
    const double left = until - now();
    if (left <= 0 || poll(&p, 1, int(left * 1e3) + 1) < 0) return false;
    if (p.revents == 0) continue;
    const ssize_t n = out ? send(socket, data, bytes, MSG_NOSIGNAL) : recv(socket, data, bytes, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (n > 0) data += n, bytes -= size_t(n);
  }
  return true;
}

void say(int socket, const char* data, size_t bytes) {
  // A few bytes: either they fit into the socket's buffer or nobody listens any more.
  [[maybe_unused]] const ssize_t n = send(socket, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void tune(int socket) {
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(socket, F_SETFD, FD_CLOEXEC);
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK);
}

std::string own_addresses() {
  std::string list;
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) fail("getifaddrs");
  for (const ifaddrs* i = first; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_LOOPBACK)) continue;
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr, text, sizeof text);
    list += std::string(" ") + text;
  }
  freeifaddrs(first);
  return list;
}

}  // namespace

RankWatch::RankWatch(int size, bool local) : rank_(0), size_(size) {
  listening_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listening_ < 0) fail("socket");
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(local ? INADDR_LOOPBACK : INADDR_ANY);
  socklen_t length = sizeof a;
  if (bind(listening_, reinterpret_cast<sockaddr*>(&a), length) != 0 || listen(listening_, size) != 0 ||
      getsockname(listening_, reinterpret_cast<sockaddr*>(&a), &length) != 0) {
    const int error = errno;
    close(listening_);
    errno = error;
    fail("listen");
  }
  std::random_device random;
  while (token_.size() < kTokenLength) token_ += fmt::format("{:08x}", random());
  address_ = fmt::format("{} {}{}", token_, ntohs(a.sin_port), local ? " 127.0.0.1" : own_addresses());
}

RankWatch::RankWatch(int rank, int size, const std::string& address) : rank_(rank), size_(size) {
  std::istringstream words(address);
  int port = 0;
  words >> token_ >> port;
  for (std::string host; words >> host;) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(uint16_t(port));
    inet_pton(AF_INET, host.c_str(), &a.sin_addr);
    const int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0) fail("socket");
    tune(s);
    const double until = now() + 5;
    const bool begun = connect(s, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 || errno == EINPROGRESS;
    int32_t me = rank;
    if (begun && transfer(s, token_.data(), kTokenLength, true, until) &&
        transfer(s, reinterpret_cast<char*>(&me), sizeof me, true, until)) {
      peers_.push_back({s, 0, now()});
      return;
    }
    close(s);
  }
  throw std::runtime_error(fmt::format("no connection to rank 0 at {}", address.substr(kTokenLength + 1)));
}

void RankWatch::accept_all(double seconds) {
  const double until = now() + seconds;
  while (int(peers_.size()) < size_ - 1) {
    pollfd p{listening_, POLLIN, 0};
    const double left = until - now();
    if (left <= 0)
      throw std::runtime_error(fmt::format("{} of {} ranks have not connected", size_ - 1 - int(peers_.size()), size_ - 1));
    if (poll(&p, 1, int(left * 1e3) + 1) <= 0) continue;
    const int s = accept(listening_, nullptr, nullptr);
    if (s < 0) continue;
    tune(s);
    char token[kTokenLength];
    int32_t rank = 0;
    const double patience = now() + 2;
    if (transfer(s, token, kTokenLength, false, patience) && std::memcmp(token, token_.data(), kTokenLength) == 0 &&
        transfer(s, reinterpret_cast<char*>(&rank), sizeof rank, false, patience)) {
      peers_.push_back({s, rank, now()});
    } else {
      close(s);  // somebody else
    }
  }
  close(listening_);
  listening_ = -1;
}

void RankWatch::start(std::function<void(int)> on_lost, double seconds) {
  on_lost_ = std::move(on_lost);
  if (rank_ == 0) accept_all(seconds);
  for (Peer& p : peers_) p.heard = now();
  thread_ = std::thread([this] { watch(); });
}

RankWatch::~RankWatch() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
  for (const Peer& p : peers_) {
    say(p.socket, &kBye, 1);
    close(p.socket);
  }
  if (listening_ >= 0) close(listening_);
}

bool RankWatch::hear(Peer& peer) {
  char data[256];
  for (;;) {
    const ssize_t n = recv(peer.socket, data, sizeof data, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) return false;
    peer.heard = now();
    for (ssize_t i = 0; i < n; ++i) {
      if (data[i] == kBye) {
        peer.gone = true;
        return true;
      }
      int32_t rank = 0;
      if (data[i] == kDied && i + ssize_t(sizeof rank) < n) {
        std::memcpy(&rank, data + i + 1, sizeof rank);
        set_lost(rank);
        i += ssize_t(sizeof rank);
      }
    }
  }
}

void RankWatch::set_lost(int rank) {
  int none = -1;
  if (!lost_.compare_exchange_strong(none, rank)) return;
  if (rank_ == 0) {
    char news[1 + sizeof(int32_t)] = {kDied};
    const int32_t who = rank;
    std::memcpy(news + 1, &who, sizeof who);
    for (const Peer& p : peers_) {
      if (!p.gone && p.rank != rank) say(p.socket, news, sizeof news);
    }
  }
}

void RankWatch::watch() {
  double beat = 0, awake = now();
  std::vector<pollfd> polled;
  while (!stop_ && lost_ < 0) {
    polled.clear();
    for (const Peer& p : peers_) polled.push_back({p.gone ? -1 : p.socket, POLLIN, 0});
    poll(polled.data(), nfds_t(polled.size()), 100);
    const double t = now();
    if (t - awake > kSilence / 4) {
      for (Peer& p : peers_) p.heard = t;  // this process was stopped, and the others perhaps with it
    }
    awake = t;
    for (size_t i = 0; i < peers_.size(); ++i) {
      Peer& p = peers_[i];
      if (p.gone) continue;
      const bool dead = (polled[i].revents != 0 && !hear(p)) || t - p.heard > kSilence;
      if (dead && !p.gone) set_lost(p.rank);
      if (t - beat > kBeat && !p.gone) say(p.socket, &kAlive, 1);
    }
    if (t - beat > kBeat) beat = t;
  }
  if (lost_ >= 0 && !stop_) on_lost_(lost_);
}

}  // namespace tessera
