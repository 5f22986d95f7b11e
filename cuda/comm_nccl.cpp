#include "cuda/comm_nccl.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "cuda/context.h"
#include "cuda/event.h"
#include "cuda/vendor/nccl_api.h"
#include "tensor/base/env.h"

namespace tessera::cuda {

namespace {

using vendor::NcclApi;

class NcclCommunicator final : public Communicator {
 public:
  explicit NcclCommunicator(Communicator& hosts) : hosts_(hosts), api_(*vendor::nccl_api()) {
    vendor::NcclId id{};
    if (hosts.leader()) check(api_.unique_id(&id), "the id of the ranks");
    hosts.broadcast(id, 0, "NCCL's id of the ranks");
    vendor::NcclComm comm = nullptr;
    check(api_.init_rank(&comm, hosts.size(), id, hosts.rank()), "the connection of the ranks");
    comm_ = comm;
  }
  ~NcclCommunicator() override {
    if (abort_.joinable()) {
      abort_.join();
    } else if (comm_ != nullptr) {
      api_.abort(comm_);  // nothing is in flight, or nobody will finish it
    }
  }

  int rank() const override { return hosts_.rank(); }
  int size() const override { return hosts_.size(); }
  int local_rank() const override { return hosts_.local_rank(); }
  int local_size() const override { return hosts_.local_size(); }

  std::unique_ptr<PendingReduce> start_all_reduce(const Tensor& tensor, Reduce op, std::string_view what) override;
  void all_gather(const void* mine, int64_t bytes, void* all, std::string_view what) override {
    hosts_.all_gather(mine, bytes, all, what);
  }
  std::vector<std::string> gather(std::string_view mine, int root, std::string_view what) override {
    return hosts_.gather(mine, root, what);
  }
  void broadcast(void* data, int64_t bytes, int root, std::string_view what) override { hosts_.broadcast(data, bytes, root, what); }
  void broadcast_tensor(const Tensor& tensor, int root, std::string_view what) override {
    if (tensor.device() == Device::cpu()) return hosts_.broadcast(tensor, root, what);
    TESSERA_CHECK(tensor.is_dense(), "broadcast of {}: {} is not dense", what, describe(tensor));
    if (tensor.numel() == 0) return;
    const size_t bytes = size_t(tensor.numel()) * size_of(tensor.dtype());
    // On the stream of the work: who reads it next has to wait for it anyway.
    check(api_.broadcast(tensor.raw(), tensor.raw(), bytes, vendor::kNcclUint8, root, comm_, current_stream()), what);
    if (rank() != root) tensor.bump_version();
  }
  void all_gather_tensor(const Tensor& mine, const Tensor& all, std::string_view what) override {
    if (mine.device() == Device::cpu()) return Communicator::all_gather_tensor(mine, all, what);
    const size_t bytes = size_t(mine.numel()) * size_of(mine.dtype());
    check(api_.all_gather(mine.raw(), all.raw(), bytes, vendor::kNcclUint8, comm_, current_stream()), what);
  }
  void barrier(std::string_view what) override { hosts_.barrier(what); }

  bool in_stream(Device device) const override { return device.kind == Device::Kind::kCuda; }
  void wait_for(Device device) override {
    if (!in_stream(device)) return;
    reached_.record(current_stream());
    do {
      check(vendor::kNcclSuccess, "the work of the device");
      std::this_thread::yield();
    } while (!reached_.passed());
  }

  // Also what went wrong after a call had returned.
  void check(int result, std::string_view what) {
    if (result == vendor::kNcclSuccess && comm_ != nullptr && !abort_.joinable()) {
      int later = vendor::kNcclSuccess;
      result = api_.async_error(comm_, &later);
      if (result == vendor::kNcclSuccess && later != vendor::kNcclInProgress) result = later;
    }
    if (result != vendor::kNcclSuccess) fail(result, what);
  }

  [[noreturn]] void fail(int result, std::string_view what) {
    const bool connected = comm_ != nullptr && !abort_.joinable();
    const char* const more = connected ? api_.last_error(comm_) : nullptr;
    const std::string why =
        fmt::format("NCCL, in {}: {}{}{}", what, api_.error_string(result), more && *more ? ": " : "", more ? more : "");
    // What the device waits for will not come, and destructors wait for the device. In a thread, for NCCL waits in turn until the
    // last graph with calls of this communicator is gone.
    if (connected) abort_ = std::thread([this] { api_.abort(comm_); });
    throw Error(
        ErrorCode::kIo, why, {},
        "NCCL_DEBUG=INFO tells more; TESSERA_NCCL=0 takes the way over the host; go on from the last checkpoint with --resume");
  }

  Communicator& hosts_;
  const NcclApi& api_;
  vendor::NcclComm comm_ = nullptr;
  SideStream stream_;
  Event reached_;       // of wait_for()
  std::thread abort_;   // runs ncclCommAbort() after a failure
};

class NcclReduce final : public PendingReduce {
 public:
  NcclReduce(NcclCommunicator& ranks, const Tensor& tensor, Reduce op, std::string what)
      : ranks_(ranks), tensor_(tensor), what_(std::move(what)), recorded_(recording()) {
    Event ready;
    ready.record(current_stream());
    ready.make_wait(ranks.stream_.get());
    const int how = op == Reduce::kMean ? vendor::kNcclAvg : vendor::kNcclSum;
    ranks.check(ranks.api_.all_reduce(tensor.raw(), tensor.raw(), size_t(tensor.numel()), vendor::kNcclFloat32, how, ranks.comm_,
                                      ranks.stream_.get()),
                what_);
    done_.record(ranks.stream_.get());
  }
  // Nothing has to be called for it to move on. In a recording it has not begun, and asking would end that.
  bool test() override { return !recorded_ && done_.passed(); }
  void wait() override {
    ranks_.check(vendor::kNcclSuccess, what_);
    done_.make_wait(current_stream());
  }

 private:
  NcclCommunicator& ranks_;
  Tensor tensor_;
  std::string what_;
  bool recorded_;
  Event done_;
};

std::unique_ptr<PendingReduce> NcclCommunicator::start_all_reduce(const Tensor& tensor, Reduce op, std::string_view what) {
  if (tensor.device() == Device::cpu()) return hosts_.start_all_reduce(tensor, op, what);
  TESSERA_CHECK(tensor.dtype() == DType::kF32 && tensor.is_dense(), "all_reduce of {}: {}, expected dense f32", what, describe(tensor));
  return std::make_unique<NcclReduce>(*this, tensor, op, "all_reduce of " + std::string(what));
}

}  // namespace

std::unique_ptr<Communicator> nccl_communicator(Communicator& hosts) {
  const bool wanted = env("TESSERA_NCCL").value_or("1") != "0";
  const std::vector<int> here = hosts.all_gather(int(wanted && vendor::nccl_api() != nullptr), "whether NCCL is there");
  if (*std::min_element(here.begin(), here.end()) == 0) return nullptr;
  return std::make_unique<NcclCommunicator>(hosts);
}

}  // namespace tessera::cuda
