// Several processes ("ranks") that train one model: what they tell each other. Every rank makes the same calls in the same order; a
// call returns when its own part is done. With one process everything returns at once.
//
// A rank that dies does not leave the others waiting: the call in which they wait for it throws Error(kIo) that names the rank and
// the call, and a rank that is computing meanwhile ends by itself (on_rank_lost()).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tensor/tensor.h"

namespace tessera {

enum class Reduce { kSum, kMean };

// A reduction in flight; the tensor belongs to it until wait() has returned.
class PendingReduce {
 public:
  virtual ~PendingReduce() = default;
  virtual bool test() = 0;  // moves it on; true: nothing is left to wait for
  virtual void wait() = 0;
};

// `what` names the data for messages: "gradients, bucket 2 of 7".
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Among the ranks of this machine.
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;
  bool leader() const { return rank() == 0; }
  bool alone() const { return size() == 1; }

  // Elementwise over the ranks, in place; f32, dense, of one length everywhere. The result has the same bits on all ranks and in
  // every run with as many ranks. A tensor of a device is taken over the host unless the communicator says otherwise.
  virtual std::unique_ptr<PendingReduce> start_all_reduce(const Tensor& tensor, Reduce op, std::string_view what) = 0;
  void all_reduce(const Tensor& tensor, Reduce op, std::string_view what) { start_all_reduce(tensor, op, what)->wait(); }

  // `mine` of every rank, in rank order, into `all` (size() * bytes); of one length everywhere.
  virtual void all_gather(const void* mine, int64_t bytes, void* all, std::string_view what) = 0;
  // Of any length each: at the root in rank order, elsewhere empty.
  virtual std::vector<std::string> gather(std::string_view mine, int root, std::string_view what) = 0;
  virtual void broadcast(void* data, int64_t bytes, int root, std::string_view what) = 0;
  virtual void barrier(std::string_view what) = 0;

  // The same for values, texts and tensors of any type and device (dense).
  template <class T>
  std::vector<T> all_gather(const T& mine, std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> all(size_t(size()), mine);
    all_gather(&mine, sizeof(T), all.data(), what);
    return all;
  }
  template <class T>
  void broadcast(T& value, int root, std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>);
    broadcast(&value, sizeof(T), root, what);
  }
  void broadcast(std::string& text, int root, std::string_view what);
  void broadcast(const Tensor& tensor, int root, std::string_view what) { broadcast_tensor(tensor, root, what); }
  // A dense tensor of one type and shape on every rank: (size(), its shape) in rank order, where `mine` is.
  Tensor all_gather(const Tensor& mine, std::string_view what);

  // Whether calls with tensors of this device are work of its stream, which the host neither waits for nor carries anything for.
  // Only such calls can be recorded (tensor/capture.h); then they must be on all ranks, and be replayed on all of them.
  virtual bool in_stream(Device) const { return false; }
  // Waits for the work of a device that has such calls, and looks meanwhile whether one of them fails, for which the device would
  // wait for ever: Error(kIo). Elsewhere returns at once.
  virtual void wait_for(Device) {}

 protected:
  // Over the host.
  virtual void broadcast_tensor(const Tensor& tensor, int root, std::string_view what);
  virtual void all_gather_tensor(const Tensor& mine, const Tensor& all, std::string_view what);
};

// One process.
Communicator& single_process();

// --- the processes of an MPI launch (comm_mpi.cpp; no_mpi.cpp where there is no MPI) ---------------------------------------------

// All processes that mpirun, srun or the like have started with this one; single_process() when it was started by itself. The first
// call connects them. Error(kUsage): there are several, but this build has no MPI.
Communicator& world();

// This process's number in such a launch, also before world(); 0 when started by itself.
int launched_rank();

// Before world(): how to tell that another rank has died while this one was computing, which then ends with exit code 6. Called in
// another thread. Default: the message on stderr.
void on_rank_lost(std::function<void(const Error&)> tell);

// Whether this rank should tell about its own failure. Rank 0 always; another one waits for a moment: when rank 0 ends meanwhile,
// it has most likely told the same.
bool failure_is_news();

// The last thing a process does. agreed: all ranks come here with this code. Otherwise all of them are ended. Returns the code.
int leave_world(int code, bool agreed);

std::string describe_mpi();  // "Open MPI v4.1.4", or why there is none

}  // namespace tessera
