#include "tests/cuda_host/ranks/nccl_twin.h"

#include <cuda_runtime.h>
#include <unistd.h>

#include <vector>

#include "cuda/vendor/nccl_api.h"
#include "tensor/comm.h"
#include "tests/cuda_host/emulator.h"

namespace tessera::testing {

namespace {

using namespace cuda::vendor;

struct Twin {
  cudaEvent_t last = nullptr;  // behind the call before, in capture `capture`
  uint64_t capture = 0;
};

std::function<void(int)> heard;
int count_of_exchanges = 0;

void exchange(const Tensor& host, Reduce op) {
  ++count_of_exchanges;
  if (heard) heard(count_of_exchanges);
  const auto pending = world().start_all_reduce(host, op, "the twin of NCCL");
  while (!pending->test()) usleep(20);
  pending->wait();
}

int run(NcclComm comm, void* stream, std::function<void()> work) {
  Twin& twin = *static_cast<Twin*>(comm);
  const auto s = static_cast<cudaStream_t>(stream);
  const uint64_t capture = emulated::capture_of(s);
  const bool after = capture != 0 && capture == twin.capture;
  if (after && cudaStreamWaitEvent(s, twin.last, 0) != cudaSuccess) return 1;
  const auto call = [work = std::move(work)] { return work(), cudaSuccess; };
  if (emulated::submit(s, call) != cudaSuccess) return 1;
  if (capture != 0 && cudaEventRecord(twin.last, s) != cudaSuccess) return 1;
  twin.capture = capture;
  return kNcclSuccess;
}

// Every byte as a number, all of them in the places of their ranks: a sum that is exact.
void gather_bytes(const void* from, void* to, size_t bytes, int only) {
  std::vector<uint8_t> own(bytes);
  emulated::copy(own.data(), from, bytes);
  const int size = only >= 0 ? 1 : world().size();
  const Tensor all = Tensor::zeros({int64_t(bytes) * size});
  if (only < 0 || only == world().rank()) {
    float* const place = all.data<float>() + (only < 0 ? size_t(world().rank()) * bytes : 0);
    for (size_t i = 0; i < bytes; ++i) place[i] = own[i];
  }
  exchange(all, Reduce::kSum);
  std::vector<uint8_t> result(size_t(all.numel()));
  for (size_t i = 0; i < result.size(); ++i) result[i] = uint8_t(all.data<float>()[i]);
  emulated::copy(to, result.data(), result.size());
}

const NcclApi kTwins{
    .version = [](int* v) { return *v = 22809, kNcclSuccess; },
    .unique_id = [](NcclId*) { return kNcclSuccess; },
    .init_rank =
        [](NcclComm* comm, int, NcclId, int) {
          auto* const twin = new Twin;
          *comm = twin;
          return cudaEventCreate(&twin->last) == cudaSuccess ? kNcclSuccess : 1;
        },
    .all_reduce =
        [](const void* from, void* to, size_t count, int, int op, NcclComm comm, void* stream) {
          return run(comm, stream, [=] {
            const Tensor host = Tensor::empty({int64_t(count)});
            emulated::copy(host.raw(), from, count * sizeof(float));
            exchange(host, op == kNcclAvg ? Reduce::kMean : Reduce::kSum);
            emulated::copy(to, host.raw(), count * sizeof(float));
          });
        },
    .all_gather = [](const void* from, void* to, size_t bytes, int, NcclComm comm,
                     void* stream) { return run(comm, stream, [=] { gather_bytes(from, to, bytes, -1); }); },
    .broadcast = [](const void* from, void* to, size_t bytes, int, int root, NcclComm comm,
                    void* stream) { return run(comm, stream, [=] { gather_bytes(from, to, bytes, root); }); },
    .async_error = [](NcclComm, int* error) { return *error = kNcclSuccess, kNcclSuccess; },
    .abort =
        [](NcclComm comm) {
          auto* const twin = static_cast<Twin*>(comm);
          (void)cudaEventDestroy(twin->last);
          delete twin;
          return kNcclSuccess;
        },
    .error_string = [](int) { return "unhandled cuda error"; },
    .last_error = [](NcclComm) { return ""; },
};

}  // namespace

void play_nccl() { set_nccl_api(&kTwins); }
void on_exchange(std::function<void(int)> listener) { heard = std::move(listener); }
int exchanges() { return count_of_exchanges; }

}  // namespace tessera::testing
