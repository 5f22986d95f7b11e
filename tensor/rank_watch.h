// Notices that another rank is gone, whatever the launcher does about it. Every rank keeps a TCP connection with rank 0 open: when
// a process dies, its system closes the connection at once; when a machine or the network goes, its beats stay away for kSilence
// seconds. Rank 0 passes the news on. A thread of its own watches, so a rank that computes or waits is a living one.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace tessera {

class RankWatch {
 public:
  static constexpr double kSilence = 20;  // seconds without a sign of life

  // Rank 0: opens a port; address() is for the others. local: all are on this machine, so that nobody outside can knock.
  RankWatch(int size, bool local);
  // Another rank, with rank 0's address(). Connects. Throws std::runtime_error when that does not work.
  RankWatch(int rank, int size, const std::string& address);
  ~RankWatch();  // says good-bye: to end is not to die
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  const std::string& address() const { return address_; }
  // Rank 0: waits until all others are connected, std::runtime_error after `seconds`. Then, on every rank, begins to watch; on_lost
  // is called in the watching thread, once.
  void start(std::function<void(int rank)> on_lost, double seconds = 20);
  int lost() const { return lost_; }  // the first rank that died, -1: none

 private:
  struct Peer {
    int socket = -1;
    int rank = 0;
    double heard = 0;  // when, in seconds
    bool gone = false;
  };
  void accept_all(double seconds);
  void watch();
  bool hear(Peer& peer);  // false: dead
  void set_lost(int rank);

  int rank_, size_;
  int listening_ = -1;
  std::string address_, token_;
  std::vector<Peer> peers_;
  std::atomic<int> lost_{-1};
  std::atomic<bool> stop_{false};
  std::function<void(int)> on_lost_;
  std::thread thread_;
};

}  // namespace tessera
