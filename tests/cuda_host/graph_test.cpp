// Recording of a device's work as a CUDA graph, on the emulated runtime: what a replay does, whose memory it uses, and what is left
// after each way in which it can fail.
#include <doctest/doctest.h>

#include "cuda/context.h"
#include "tensor/backend.h"
#include "tensor/ops/pointwise.h"
#include "tests/cuda_host/emulator.h"
#include "tests/support/error_of.h"

namespace tessera::testing {
namespace {

const Device kCuda = Device::cuda();

// sum += (2 x)^2, with a temporary of the allocator in between.
struct Work {
  Tensor x = Tensor::full({1000}, 1.5, DType::kF32, kCuda);
  Tensor sum = Tensor::zeros({1000}, DType::kF32, kCuda);
  void operator()() const { ops::add_scaled(ops::unary(UnaryOp::kSquare, ops::scale(x, 2)), 1, sum); }
  float value() const { return sum.to_vector<float>()[999]; }
};

TEST_CASE("recorded work runs at every replay, and not before") {
  const Work work;
  const auto recorder = backend_for(kCuda).recorder();
  const uint64_t launches = emulated::launches();
  const auto recording = recorder->record(work);
  CHECK(emulated::launches() == launches);
  CHECK(work.value() == 0);
  recording->replay();
  CHECK(emulated::launches() == launches + 3);
  CHECK(work.value() == 9);
  work.x.fill(0.5);
  recording->replay();
  CHECK(work.value() == 10);
  CHECK(emulated::take_reports().empty());
}

TEST_CASE("a recording has memory of its own, which all recordings of a recorder share") {
  const Work work;
  work();
  cuda::device_allocator().trim();
  const int before = emulated::live_buffers();
  const int64_t in_use = cuda::device_allocator().stats().bytes_in_use;
  {
    const auto recorder = backend_for(kCuda).recorder();
    const auto first = recorder->record(work);
    CHECK(emulated::live_buffers() == before + 1);  // one segment for the temporaries
    const auto second = recorder->record(work);
    CHECK(emulated::live_buffers() == before + 1);
    CHECK(cuda::device_allocator().stats().bytes_in_use == in_use);
    work.sum.fill(0);
    const uint64_t allocations = emulated::calls("cudaMalloc");
    // Other work in between has the cache's memory, not the recording's.
    first->replay();
    const Tensor other = Tensor::full({1000}, 77, DType::kF32, kCuda);
    second->replay();
    CHECK(work.value() == 18);
    CHECK(other.to_vector<float>() == std::vector<float>(1000, 77.0f));
    CHECK(emulated::calls("cudaMalloc") <= allocations + 1);
  }
  cuda::device_allocator().trim();
  CHECK(emulated::live_buffers() == before);
  CHECK(emulated::take_reports().empty());
}

// Afterwards the work runs as before, nothing blames a later launch, and another recorder records it.
void check_as_before(const Work& work, int buffers) {
  cuda::device_allocator().trim();
  CHECK(emulated::live_buffers() == buffers);
  CHECK(cudaGetLastError() == cudaSuccess);
  work.sum.fill(0);
  work();
  CHECK(work.value() == 9);
  const auto recorder = backend_for(kCuda).recorder();
  const auto recording = recorder->record(work);
  recording->replay();
  CHECK(work.value() == 18);
}

TEST_CASE("a recording that fails leaves the device as it was") {
  const Work work;
  work();
  cuda::device_allocator().trim();
  const int buffers = emulated::live_buffers();
  const auto record = [&] {
    const auto recorder = backend_for(kCuda).recorder();
    recorder->record(work);
  };

  SUBCASE("no memory for its pool") {
    emulated::fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation, 2);
    const Error e = error_of(record);
    CHECK(e.code() == ErrorCode::kMemory);
    CHECK(says(e, "out of memory"));
  }
  SUBCASE("no memory for the graph") {
    emulated::fail_call("cudaGraphInstantiate", 1, cudaErrorMemoryAllocation);
    CHECK(error_of(record).code() == ErrorCode::kMemory);
    emulated::fail_call("cudaGraphUpload", 1, cudaErrorMemoryAllocation);
    CHECK(error_of(record).code() == ErrorCode::kMemory);
  }
  SUBCASE("a kernel cannot be launched") {
    emulated::fail_call("capture", 2, cudaErrorLaunchOutOfResources);
    const Error e = error_of(record);
    CHECK(says(e, "cuda kernel square("));
    CHECK(says(e, "too many resources requested for launch"));
  }
  SUBCASE("the device is lost at any call") {
    for (const char* call : {"cudaDeviceGetStreamPriorityRange", "cudaStreamCreateWithPriority", "cudaStreamBeginCapture",
                             "cudaThreadExchangeStreamCaptureMode", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphUpload"}) {
      CAPTURE(call);
      emulated::fail_call(call, 1, cudaErrorIllegalAddress);
      const Error e = error_of(record);
      CHECK(e.code() == ErrorCode::kBug);
      CHECK(says(e, "an illegal memory access was encountered"));
    }
  }
  SUBCASE("a wait for the device") {
    const auto recorder = backend_for(kCuda).recorder();
    const Error e = error_of([&] {
      recorder->record([&] {
        work();
        work.sum.to_vector<float>();
      });
    });
    CHECK(says(e, "operation not permitted when stream is capturing"));
  }
  SUBCASE("an exception of the work itself") {
    const auto recorder = backend_for(kCuda).recorder();
    const Error e = error_of([&] { recorder->record([&] { work(), throw Error(ErrorCode::kData, "of the work"); }); });
    CHECK(says(e, "of the work"));
  }
  check_as_before(work, buffers);
}

TEST_CASE("a replay that does not start says so") {
  const Work work;
  const auto recorder = backend_for(kCuda).recorder();
  const auto recording = recorder->record(work);
  emulated::fail_call("cudaGraphLaunch", 1, cudaErrorIllegalAddress);
  const Error e = error_of([&] { recording->replay(); });
  CHECK(says(e, "an illegal memory access was encountered (cudaErrorIllegalAddress) when the recorded step was started"));
  CHECK(e.hint().find("--no-graph with TESSERA_SYNC=1") != std::string::npos);
  CHECK(work.value() == 0);
  emulated::fail_call("cudaGraphLaunch", 1, cudaErrorMemoryAllocation);
  CHECK(error_of([&] { recording->replay(); }).code() == ErrorCode::kMemory);
  recording->replay();
  CHECK(work.value() == 9);
}

// The emulation refuses what a real runtime refuses; or the tests above would show nothing.
TEST_CASE("the emulated runtime's rules of capture") {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  void* p = nullptr;
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamCreate(&stream) == cudaSuccess);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(cudaMemsetAsync(nullptr, 0, 0, nullptr) == cudaErrorStreamCaptureImplicit);  // the default stream waits for this one
  CHECK(cudaMemsetAsync(nullptr, 0, 0, stream) == cudaErrorStreamCaptureInvalidated);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);

  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(cudaMemsetAsync(nullptr, 0, 0, nullptr) == cudaSuccess);
  CHECK(cudaMalloc(&p, 64) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  (void)cudaGetLastError();
}

TEST_CASE("the emulated runtime's rules of a capture over two streams") {
  struct Two {
    cudaStream_t origin = nullptr, other = nullptr;
    cudaEvent_t before = nullptr, fork = nullptr, join = nullptr;
    cudaGraph_t graph = nullptr;
    Two() {
      for (cudaStream_t* s : {&origin, &other}) CHECK(cudaStreamCreateWithFlags(s, cudaStreamNonBlocking) == cudaSuccess);
      for (cudaEvent_t* e : {&before, &fork, &join}) CHECK(cudaEventCreate(e) == cudaSuccess);
      CHECK(cudaEventRecord(before, other) == cudaSuccess);
      CHECK(cudaStreamBeginCapture(origin, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
      CHECK(cudaEventRecord(fork, origin) == cudaSuccess);
      CHECK(cudaStreamWaitEvent(other, fork, 0) == cudaSuccess);
      CHECK(emulated::capture_of(other) == emulated::capture_of(origin));
      CHECK(cudaMemsetAsync(nullptr, 0, 0, other) == cudaSuccess);
    }
    ~Two() {
      for (cudaStream_t s : {origin, other}) CHECK(cudaStreamDestroy(s) == cudaSuccess);
      for (cudaEvent_t e : {before, fork, join}) CHECK(cudaEventDestroy(e) == cudaSuccess);
      (void)cudaGetLastError();
    }
    void rejoin() const {
      CHECK(cudaEventRecord(join, other) == cudaSuccess);
      CHECK(cudaStreamWaitEvent(origin, join, 0) == cudaSuccess);
    }
  } two;
  cudaError_t end = cudaErrorStreamCaptureInvalidated;
  SUBCASE("joined") {
    two.rejoin();
    end = cudaSuccess;
  }
  SUBCASE("a kernel is to start early behind both") {
    CHECK(cudaMemsetAsync(nullptr, 0, 0, two.origin) == cudaSuccess);
    CHECK(emulated::accept_early(two.origin) == cudaSuccess);
    two.rejoin();
    CHECK(emulated::accept_early(two.origin) == cudaErrorInvalidValue);
    end = cudaSuccess;
  }
  SUBCASE("not joined") { end = cudaErrorStreamCaptureUnjoined; }
  SUBCASE("ended by the other stream") {
    two.rejoin();
    CHECK(cudaStreamEndCapture(two.other, &two.graph) == cudaErrorStreamCaptureUnmatched);
  }
  SUBCASE("an event of the capture is asked") { CHECK(cudaEventQuery(two.fork) == cudaErrorCapturedEvent); }
  SUBCASE("an event of the capture is waited for") { CHECK(cudaEventSynchronize(two.fork) == cudaErrorCapturedEvent); }
  SUBCASE("the other stream is waited for") { CHECK(cudaStreamSynchronize(two.other) == cudaErrorStreamCaptureUnsupported); }
  SUBCASE("an event from before the capture") {
    CHECK(cudaStreamWaitEvent(two.origin, two.before, 0) == cudaErrorStreamCaptureIsolation);
  }
  SUBCASE("the default stream is to take part") {
    CHECK(cudaStreamWaitEvent(nullptr, two.fork, 0) == cudaErrorStreamCaptureUnsupported);
  }
  CHECK(cudaStreamEndCapture(two.origin, &two.graph) == end);
  CHECK((two.graph != nullptr) == (end == cudaSuccess));
  CHECK(emulated::capture_of(two.other) == 0);
  CHECK(cudaStreamWaitEvent(two.origin, two.fork, 0) == cudaErrorCapturedEvent);  // of a capture that is over
  if (two.graph != nullptr) CHECK(cudaGraphDestroy(two.graph) == cudaSuccess);
}

}  // namespace
}  // namespace tessera::testing
