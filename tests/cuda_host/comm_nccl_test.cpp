// Collectives of device tensors over NCCL, on the emulated runtime and with functions of the test's own in NCCL's place: a second
// rank that always holds the same.
#include "cuda/comm_nccl.h"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>

#include "cuda/context.h"
#include "cuda/vendor/nccl_api.h"
#include "tensor/backend.h"
#include "tensor/ops/pointwise.h"
#include "tests/cuda_host/emulator.h"
#include "tests/support/error_of.h"

namespace tessera::testing {
namespace {

using namespace cuda::vendor;

// Rank 0 of two, whose hosts say the same.
class TwoHosts final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 2; }
  std::unique_ptr<PendingReduce> start_all_reduce(const Tensor&, Reduce, std::string_view what) override {
    calls.emplace_back(what);
    return nullptr;
  }
  void all_gather(const void* mine, int64_t bytes, void* all, std::string_view) override {
    for (int i = 0; i < 2; ++i) std::memcpy(static_cast<char*>(all) + i * bytes, mine, size_t(bytes));
    if (other_has_none) static_cast<int*>(all)[1] = 0;
  }
  std::vector<std::string> gather(std::string_view mine, int, std::string_view) override { return {2, std::string(mine)}; }
  void broadcast(void*, int64_t, int, std::string_view what) override { calls.emplace_back(what); }
  void barrier(std::string_view what) override { calls.emplace_back(what); }
  std::vector<std::string> calls;
  bool other_has_none = false;
};

struct Seen {
  int result = kNcclSuccess, later = kNcclSuccess, connected = 0, aborted = 0, reductions = 0, version = 22809;
  size_t broadcast_bytes = 0;
  void* stream = nullptr;
} seen;

const NcclApi kTwins{
    .version = [](int* v) { return *v = seen.version, kNcclSuccess; },
    .unique_id = [](NcclId* id) { return id->bytes[0] = 'T', kNcclSuccess; },
    .init_rank =
        [](NcclComm* comm, int ranks, NcclId id, int rank) {
          CHECK(ranks == 2);
          CHECK(rank == 0);
          CHECK(id.bytes[0] == 'T');
          *comm = &seen;
          ++seen.connected;
          return seen.result;
        },
    .all_reduce =
        [](const void* from, void* to, size_t count, int type, int op, NcclComm comm, void* stream) {
          CHECK(type == kNcclFloat32);
          CHECK(from == to);
          CHECK(comm == &seen);
          seen.stream = stream;
          ++seen.reductions;
          if (seen.result == kNcclSuccess && op == kNcclSum) {
            const auto s = static_cast<cudaStream_t>(stream);
            const auto doubled = std::make_shared<std::vector<float>>(count);
            const auto add = [=] {
              for (size_t i = 0; i < count; ++i) (*doubled)[i] = 2 * static_cast<const float*>(from)[i];
              return cudaSuccess;
            };
            if (emulated::capture_of(s) != 0) {
              (void)emulated::submit(
                  s, [=] { return add(), emulated::copy(to, doubled->data(), count * sizeof(float)), cudaSuccess; });
            } else {
              // As a kernel on that stream: late, when the emulation is.
              static std::shared_ptr<std::vector<float>> kept;
              kept = doubled;
              add();
              (void)cudaMemcpyAsync(to, doubled->data(), count * sizeof(float), cudaMemcpyHostToDevice, s);
            }
          }
          return seen.result;
        },
    .all_gather =
        [](const void* from, void* to, size_t count, int type, NcclComm, void* stream) {
          CHECK(type == kNcclUint8);
          for (size_t r = 0; r < 2; ++r) {
            (void)cudaMemcpyAsync(static_cast<char*>(to) + r * count, from, count, cudaMemcpyDeviceToDevice,
                                  static_cast<cudaStream_t>(stream));
          }
          return seen.result;
        },
    .broadcast =
        [](const void*, void*, size_t count, int, int, NcclComm, void* stream) {
          seen.broadcast_bytes = count;
          seen.stream = stream;
          return seen.result;
        },
    .async_error = [](NcclComm, int* error) { return *error = seen.later, kNcclSuccess; },
    .abort = [](NcclComm) { return ++seen.aborted, kNcclSuccess; },
    .error_string = [](int) { return "unhandled system error"; },
    .last_error = [](NcclComm) { return "socket closed"; },
};

struct Twins {
  Twins() { seen = {}, set_nccl_api(&kTwins); }
  ~Twins() { set_nccl_api(nullptr), emulated::defer_copies(false); }
};

TEST_CASE("NCCL: a reduction runs beside the work, and what follows its wait sees the result") {
  const Twins twins;
  TwoHosts hosts;
  {
    const auto ranks = cuda::nccl_communicator(hosts);
    REQUIRE(ranks);
    CHECK(seen.connected == 1);
    emulated::defer_copies(true);
    const Tensor a = Tensor::full({5}, 3, DType::kF32, Device::cuda());
    const auto pending = ranks->start_all_reduce(a, Reduce::kSum, "gradients");
    CHECK(seen.stream != nullptr);
    CHECK(seen.stream != cuda::current_stream());
    CHECK(!pending->test());
    CHECK(a.to_vector<float>() == std::vector<float>(5, 3.0f));  // not yet
    pending->wait();
    CHECK(pending->test());
    CHECK(a.to_vector<float>() == std::vector<float>(5, 6.0f));
    ranks->all_reduce(a, Reduce::kMean, "gradients");
    CHECK(seen.reductions == 2);
    CHECK(a.to_vector<float>() == std::vector<float>(5, 6.0f));
    const Tensor b = Tensor::zeros({3}, DType::kI64, Device::cuda());
    ranks->broadcast(b, 0, "counters");
    CHECK(seen.broadcast_bytes == 24);
    CHECK(seen.stream == cuda::current_stream());
    const Tensor both = ranks->all_gather(Tensor::full({3}, 4, DType::kF64, Device::cuda()), "sums");
    CHECK(both.shape() == Shape{2, 3});
    CHECK(both.to_vector<double>() == std::vector<double>(6, 4.0));
    CHECK(ranks->in_stream(Device::cuda()));
    CHECK(!ranks->in_stream(Device::cpu()));
    // The host's own goes the way of the hosts.
    CHECK(ranks->all_gather(Tensor::full({1}, 5), "host's").to_vector<float>() == std::vector<float>{5, 5});
    ranks->start_all_reduce(Tensor::zeros({2}), Reduce::kSum, "host's");
    ranks->barrier("end");
    CHECK(hosts.calls == std::vector<std::string>{"NCCL's id of the ranks", "host's", "end"});
    CHECK(ranks->size() == 2);
    CHECK_THROWS_AS(ranks->start_all_reduce(b, Reduce::kSum, "of whole numbers"), Error);
  }
  CHECK(seen.aborted == 1);
}

// As the gradients of a step: made on the stream of the work, reduced on the other one while that goes on, and used after the wait.
TEST_CASE("NCCL: a recorded reduction forks from the work and joins it again, in any order that the graph allows") {
  const Twins twins;
  TwoHosts hosts;
  const uint64_t seed = emulated::seed();
  const auto ranks = cuda::nccl_communicator(hosts);
  const Tensor x = Tensor::full({8}, 1, DType::kF32, Device::cuda()), first = Tensor::zeros({8}, DType::kF32, Device::cuda());
  const Tensor second = first.clone(), y = first.clone();
  const auto recorder = backend_for(Device::cuda()).recorder();
  const auto recording = recorder->record([&] {
    first.copy_from(ops::scale(x, 3));
    const auto a = ranks->start_all_reduce(first, Reduce::kSum, "first");
    CHECK(emulated::capture_of(static_cast<cudaStream_t>(seen.stream)) != 0);
    second.copy_from(ops::scale(x, 5));
    CHECK(!a->test());  // nothing has begun
    const auto b = ranks->start_all_reduce(second, Reduce::kSum, "second");
    a->wait(), b->wait();
    y.copy_from(ops::binary(BinaryOp::kAdd, first, second));
  });
  CHECK(y.to_vector<float>()[7] == 0);
  for (uint64_t run = 0; run < 20; ++run) {
    emulated::set_seed(run);
    recording->replay();
    CHECK(y.to_vector<float>() == std::vector<float>(8, 16.0f));
    x.fill(1);
  }
  emulated::set_seed(seed);
  CHECK(emulated::capture_of(static_cast<cudaStream_t>(seen.stream)) == 0);

  // Without its wait the work on the other stream would run past the end of the recording.
  const auto again = backend_for(Device::cuda()).recorder();
  std::unique_ptr<PendingReduce> pending;
  const Error e = error_of([&] { again->record([&] { pending = ranks->start_all_reduce(first, Reduce::kSum, "forgotten"); }); });
  CHECK(says(e, "capturing stream has unjoined work"));
  CHECK(emulated::capture_of(static_cast<cudaStream_t>(seen.stream)) == 0);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("NCCL: what fails, at once or later, is told in its words with the call") {
  const Twins twins;
  TwoHosts hosts;
  const Tensor a = Tensor::full({5}, 3, DType::kF32, Device::cuda());
  {
    const auto ranks = cuda::nccl_communicator(hosts);
    const auto pending = ranks->start_all_reduce(a, Reduce::kMean, "gradients, bucket 2 of 7");
    seen.later = kNcclInProgress;  // of a communicator that does not block: no error
    pending->wait();
    seen.later = 2;
    const Error late = error_of([&] { pending->wait(); });
    CHECK(late.code() == ErrorCode::kIo);
    CHECK(late.message() == "NCCL, in all_reduce of gradients, bucket 2 of 7: unhandled system error: socket closed");
    CHECK(late.hint().find("TESSERA_NCCL=0") != std::string::npos);
  }
  CHECK(seen.aborted == 1);
  seen.later = kNcclSuccess;
  {
    const auto ranks = cuda::nccl_communicator(hosts);
    seen.result = 2;
    CHECK(error_of([&] { ranks->broadcast(a, 0, "weights"); }).message() ==
          "NCCL, in weights: unhandled system error: socket closed");
  }
  CHECK(seen.aborted == 2);
  CHECK(error_of([&] { cuda::nccl_communicator(hosts); }).message().find("NCCL, in the connection of the ranks") == 0);
}

// A replayed step makes no call: what has failed meanwhile shows while the host waits for the device.
TEST_CASE("NCCL: a wait for the device looks for failures, and ends what will never be finished") {
  const Twins twins;
  TwoHosts hosts;
  const auto ranks = cuda::nccl_communicator(hosts);
  ranks->wait_for(Device::cuda());
  ranks->wait_for(Device::cpu());
  seen.later = 2;
  ranks->wait_for(Device::cpu());
  const Error e = error_of([&] { ranks->wait_for(Device::cuda()); });
  CHECK(e.message() == "NCCL, in the work of the device: unhandled system error: socket closed");
  CHECK(e.code() == ErrorCode::kIo);
}

TEST_CASE("NCCL that one rank does not have is used by none") {
  const Twins twins;
  TwoHosts hosts;
  hosts.other_has_none = true;
  CHECK(cuda::nccl_communicator(hosts) == nullptr);
  CHECK(seen.connected == 0);
  CHECK(describe_nccl() == "NCCL 2.28.9");
  hosts.other_has_none = false;
  seen.version = 20804;
  CHECK(cuda::nccl_communicator(hosts) == nullptr);
  CHECK(describe_nccl() == "NCCL 2.8.4, older than 2.10: not used");
}

}  // namespace
}  // namespace tessera::testing
