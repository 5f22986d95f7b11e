// The communicator over MPI, on host memory. Every call is a non-blocking one that is tested in a loop, because MPI itself would
// wait for a dead rank for ever: between tests the loop looks whether all are still there (tensor/rank_watch.h). The C interface
// alone; the C++ one of old versions of the standard wants a library of its own.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <optional>

#include "tensor/base/parallel.h"
#include "tensor/base/standard_streams.h"
#include "tensor/comm.h"
#include "tensor/launcher.h"
#include "tensor/rank_watch.h"

namespace tessera {

namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

struct Place {
  char host[256];
  int64_t pid;
};

int count_of(int64_t n) {
  TESSERA_CHECK(n >= 0 && n <= std::numeric_limits<int>::max(), "MPI: {} elements in one call", n);
  return int(n);
}

void check(int result, std::string_view what) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  throw Error(ErrorCode::kIo, fmt::format("MPI, in {}: {}", what, std::string_view(text, size_t(length))), {},
              "go on from the last checkpoint with --resume");
}

// How a rank tells that another is gone.
std::function<void(const Error&)> tell_lost = [](const Error& e) { print_stderr("error: {}\n", e.what()); };

class MpiCommunicator;

class MpiReduce final : public PendingReduce {
 public:
  MpiReduce(MpiCommunicator& ranks, Tensor tensor, Reduce op, std::string what);
  ~MpiReduce() override {
    // Unwinding: the process is about to end, and nobody will finish the call.
    if (!done_ && std::uncaught_exceptions() == 0) wait();
  }
  bool test() override;
  void wait() override;

 private:
  MpiCommunicator& ranks_;
  Tensor tensor_, host_;
  Reduce op_;
  std::string what_;
  MPI_Request request_ = MPI_REQUEST_NULL;
  bool done_ = false;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator() {
    int given = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &given);
    // Our own copy: libraries in the process cannot get between our calls. Errors come back, with a text.
    check(MPI_Comm_dup(MPI_COMM_WORLD, &comm_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    MPI_Comm here;
    check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &here), "MPI_Comm_split_type");
    MPI_Comm_rank(here, &local_rank_);
    MPI_Comm_size(here, &local_size_);
    MPI_Comm_free(&here);
    Place mine{};
    gethostname(mine.host, sizeof mine.host - 1);
    mine.pid = getpid();
    places_ = Communicator::all_gather(mine, "the places of the ranks");
    if (size_ > 1) begin_watch();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return local_rank_; }
  int local_size() const override { return local_size_; }

  std::unique_ptr<PendingReduce> start_all_reduce(const Tensor& tensor, Reduce op, std::string_view what) override {
    TESSERA_CHECK(tensor.dtype() == DType::kF32 && tensor.is_dense(), "all_reduce of {}: {}, expected dense f32", what,
                  describe(tensor));
    return std::make_unique<MpiReduce>(*this, tensor, op, std::string("all_reduce of ") + std::string(what));
  }
  void all_gather(const void* mine, int64_t bytes, void* all, std::string_view what) override {
    run("all_gather of ", what,
        [&](MPI_Request* r) { return MPI_Iallgather(mine, count_of(bytes), MPI_BYTE, all, count_of(bytes), MPI_BYTE, comm_, r); });
  }
  std::vector<std::string> gather(std::string_view mine, int root, std::string_view what) override {
    const int own = count_of(int64_t(mine.size()));
    const bool here = rank_ == root;
    std::vector<int> sizes(here ? size_t(size_) : 0), starts(sizes.size());
    run("gather of ", what,
        [&](MPI_Request* r) { return MPI_Igather(&own, 1, MPI_INT, sizes.data(), 1, MPI_INT, root, comm_, r); });
    int64_t total = 0;
    for (size_t i = 0; i < sizes.size(); ++i) starts[i] = count_of(total), total += sizes[i];
    std::string all(size_t(count_of(total)), '\0');
    run("gather of ", what, [&](MPI_Request* r) {
      return MPI_Igatherv(mine.data(), own, MPI_BYTE, all.data(), sizes.data(), starts.data(), MPI_BYTE, root, comm_, r);
    });
    std::vector<std::string> parts;
    for (size_t i = 0; i < sizes.size(); ++i) parts.push_back(all.substr(size_t(starts[i]), size_t(sizes[i])));
    return parts;
  }
  void broadcast(void* data, int64_t bytes, int root, std::string_view what) override {
    run("broadcast of ", what, [&](MPI_Request* r) { return MPI_Ibcast(data, count_of(bytes), MPI_BYTE, root, comm_, r); });
  }
  void barrier(std::string_view what) override {
    run("barrier ", what, [&](MPI_Request* r) { return MPI_Ibarrier(comm_, r); });
  }

  // Until the call is complete or a rank is lost. Short waits cost no sleep, long ones no core.
  void wait(MPI_Request& request, const std::string& what) {
    enter(what);
    const auto start = Clock::now();
    for (int done = 0;;) {
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), what);
      if (done) break;
      const bool ends = watch_ && watch_->lost() >= 0;
      if (ends) {
        told_ = true;
        throw lost_error(watch_->lost());
      }
      if (Clock::now() - start > Milliseconds(2)) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    const std::lock_guard lock(mutex_);
    waiting_ = false;
  }

  MPI_Comm comm() const { return comm_; }

  bool failure_is_news() {
    if (told_) return true;  // about a rank that was lost
    told_ = true;            // the watching thread has nothing to add
    if (rank_ == 0) return true;
    const auto until = Clock::now() + Milliseconds(2000);
    while (Clock::now() < until) {
      if (watch_ && watch_->lost() == 0) return false;
      std::this_thread::sleep_for(Milliseconds(10));
    }
    return true;
  }

  void finish() {
    // All have arrived: from here on a connection that closes means nothing.
    barrier("at the end");
    told_ = true;
    watch_.reset();
    MPI_Comm_free(&comm_);
    MPI_Finalize();
  }

 private:
  template <class Start>
  void run(const char* kind, std::string_view what, const Start& start) {
    const std::string name = kind + std::string(what);
    MPI_Request request = MPI_REQUEST_NULL;
    check(start(&request), name);
    wait(request, name);
  }

  void begin_watch() {
    // Whether it works is agreed on, so that all know of it or none.
    std::string address, trouble;
    try {
      if (rank_ == 0) address = (watch_.emplace(size_, local_size_ == size_)).address();
    } catch (const std::exception& e) {
      trouble = e.what();
    }
    Communicator::broadcast(address, 0, "the address of rank 0");
    try {
      if (rank_ != 0 && !address.empty()) watch_.emplace(rank_, size_, address);
    } catch (const std::exception& e) {
      trouble = e.what();
    }
    int connected = watch_ ? 1 : 0;
    for (const int c : Communicator::all_gather(connected, "the connections of the watch")) connected = std::min(connected, c);
    if (connected) {
      watch_->start([this](int rank) { lost(rank); });
      return;
    }
    watch_.reset();
    if (!trouble.empty()) print_stderr("note: rank {}: {}; a rank that dies is left to the launcher to notice\n", rank_, trouble);
  }

  void enter(const std::string& what) {
    const std::lock_guard lock(mutex_);
    call_ = what;
    waiting_ = true;
  }

  Error lost_error(int rank) {
    const std::lock_guard lock(mutex_);
    const Place& p = places_[size_t(rank)];
    const std::string here = waiting_ ? fmt::format("rank {} waited for it in {}", rank_, call_)
                                      : fmt::format("rank {} was at work after {}", rank_, call_);
    return Error(ErrorCode::kIo, fmt::format("rank {} (process {} on {}) has ended; {}", rank, p.pid, p.host, here), {},
                 "its own message, if any, says why; go on from the last checkpoint with --resume");
  }

  // In the watching thread. The main thread, if it waits, says it; one that computes would find out too late.
  void lost(int rank) {
    std::this_thread::sleep_for(Milliseconds(300));
    if (!told_.exchange(true)) {
      tell_lost(lost_error(rank));
      std::fflush(nullptr);
      _exit(int(ErrorCode::kIo));
    }
    std::this_thread::sleep_for(std::chrono::seconds(10));
    _exit(int(ErrorCode::kIo));
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
  std::vector<Place> places_;
  std::optional<RankWatch> watch_;
  std::atomic<bool> told_{false};
  std::mutex mutex_;
  std::string call_;
  bool waiting_ = false;
};

MpiReduce::MpiReduce(MpiCommunicator& ranks, Tensor tensor, Reduce op, std::string what)
    : ranks_(ranks), tensor_(std::move(tensor)), host_(tensor_.to(Device::cpu())), op_(op), what_(std::move(what)) {
  check(MPI_Iallreduce(MPI_IN_PLACE, host_.data<float>(), count_of(host_.numel()), MPI_FLOAT, MPI_SUM, ranks.comm(), &request_),
        what_);
}

bool MpiReduce::test() {
  int done = done_ ? 1 : 0;
  if (!done) check(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), what_);
  return done != 0;
}

void MpiReduce::wait() {
  if (done_) return;
  ranks_.wait(request_, what_);
  done_ = true;
  if (op_ == Reduce::kMean) {
    float* const p = host_.data<float>();
    const float n = float(ranks_.size());
    parallel_for(host_.numel(), int64_t(1) << 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) p[i] /= n;
    });
  }
  if (tensor_.device() != Device::cpu()) tensor_.copy_from(host_);
}

// Never destroyed: an exit in the middle of something must not wait for the others. leave_world() ends it in order.
MpiCommunicator* mpi = nullptr;

}  // namespace

Communicator& world() {
  if (mpi == nullptr && launched_size() > 0) mpi = new MpiCommunicator;
  if (mpi == nullptr) return single_process();
  return *mpi;
}

void on_rank_lost(std::function<void(const Error&)> tell) { tell_lost = std::move(tell); }

bool failure_is_news() {
  if (mpi != nullptr) return mpi->failure_is_news();
  if (launched_rank() == 0) return true;
  std::this_thread::sleep_for(Milliseconds(3000));  // rank 0's failure makes the launcher end this one
  return true;
}

int leave_world(int code, bool agreed) {
  if (mpi == nullptr) return code;
  if (agreed) {
    mpi->finish();
    return code;
  }
  std::fflush(nullptr);
  alarm(10);  // should MPI_Abort itself wait for somebody
  MPI_Abort(MPI_COMM_WORLD, code);
  _exit(code);
}

std::string describe_mpi() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string_view all(text, size_t(length));
  return std::string(all.substr(0, all.find_first_of(",\n")));
}

}  // namespace tessera
