// A step as a CUDA graph: the launches of a stream are captured instead of run, and started as one.
#include <vector>

#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.cuh"
#include "cuda/side_work.h"

namespace tessera {

namespace cuda {
namespace {

// Makes legal what a capture forbids its thread by default: to ask for memory.
class RelaxedCapture {
 public:
  RelaxedCapture() { TESSERA_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode_)); }
  ~RelaxedCapture() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

void* memory_while_capturing(size_t bytes) {
  const RelaxedCapture relaxed;
  return raw_device_memory(bytes);
}

// The memory of all graphs of a recorder. What the cache gives back is kept until the end: captured kernels know its address.
class GraphMemory {
 public:
  ~GraphMemory() {
    allocator_.reset();
    scratch_.reset();
    for (void* p : returned_) (void)cudaFree(p);
  }
  CachingAllocator& allocator() { return *allocator_; }
  CachingAllocator& side_scratch() { return *scratch_; }

 private:
  std::unique_ptr<CachingAllocator> make() {
    return std::make_unique<CachingAllocator>(
        CachingAllocator::Raw{memory_while_capturing, [this](void* p, size_t) { returned_.push_back(p); }});
  }
  std::vector<void*> returned_;
  std::unique_ptr<CachingAllocator> allocator_ = make(), scratch_ = make();
};

class Graph final : public Recording {
 public:
  Graph(std::shared_ptr<GraphMemory> memory, cudaGraphExec_t exec) : memory_(std::move(memory)), exec_(exec) {}
  ~Graph() override { (void)cudaGraphExecDestroy(exec_); }
  void replay() override {
    const cudaError_t error = cudaGraphLaunch(exec_, current_stream());
    if (error == cudaSuccess) return;
    (void)cudaGetLastError();
    throw Error(code_of(error),
                fmt::format("CUDA: {} ({}) when the recorded step was started", cudaGetErrorString(error), cudaGetErrorName(error)),
                {}, "an earlier kernel may be the cause: --no-graph with TESSERA_SYNC=1 locates it");
  }

 private:
  std::shared_ptr<GraphMemory> memory_;
  cudaGraphExec_t exec_;
};

// A stream in capture. Every stream that waits for an event of it is captured too (reductions over several ranks and side work have
// streams of their own), and it must wait for each of them before end(). The destructor ends a capture that has no end() yet.
class CapturedStream {
 public:
  CapturedStream() {
    // Neither the default stream nor a stream that waits for it can be captured. The priority is the greatest, so that its kernels
    // come before those of the side stream, which has the least: that is the default.
    int least = 0, greatest = 0;
    TESSERA_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    TESSERA_CUDA_CHECK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
    const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) (void)cudaStreamDestroy(stream_);
    check(error, "cudaStreamBeginCapture");
    capturing_ = true;
  }
  ~CapturedStream() {
    cudaGraph_t graph = nullptr;
    if (capturing_ && cudaStreamEndCapture(stream_, &graph) == cudaSuccess) (void)cudaGraphDestroy(graph);
    (void)cudaStreamDestroy(stream_);
    (void)cudaGetLastError();  // an error of the capture is not one of the next launch
  }
  CapturedStream(const CapturedStream&) = delete;
  CapturedStream& operator=(const CapturedStream&) = delete;

  cudaStream_t get() const { return stream_; }
  cudaGraphExec_t end() {
    cudaGraph_t graph = nullptr;
    capturing_ = false;
    TESSERA_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    cudaGraphExec_t exec = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&exec, graph, cudaGraphInstantiateFlagUseNodePriority);
    (void)cudaGraphDestroy(graph);
    check(error, "cudaGraphInstantiate");
    // What the first launch would take of the device's memory is taken here, where its lack is no more than a failed recording.
    const cudaError_t uploaded = cudaGraphUpload(exec, nullptr);
    if (uploaded != cudaSuccess) (void)cudaGraphExecDestroy(exec);
    check(uploaded, "cudaGraphUpload");
    return exec;
  }

 private:
  cudaStream_t stream_ = nullptr;
  bool capturing_ = false;
};

class GraphRecorder final : public Recorder {
 public:
  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    if (detail::sync_after_launch()) throw Error(ErrorCode::kUsage, "TESSERA_SYNC=1 waits for every kernel");
    // This step needs as much as the steps before had cached. The driver gets it back, for the graph's memory comes from the
    // driver.
    device_allocator().trim();
    CapturedStream stream;
    {
      const AllocatorGuard allocator(memory_->allocator());
      const StreamGuard current(stream.get());
      SideWork side(stream.get(), memory_->allocator(), side_.get(), memory_->side_scratch());
      work();
      side.join();
    }
    return std::make_unique<Graph>(memory_, stream.end());
  }

 private:
  std::shared_ptr<GraphMemory> memory_ = std::make_shared<GraphMemory>();
  SideStream side_;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Recorder> CudaBackend::recorder() { return std::make_unique<cuda::GraphRecorder>(); }

}  // namespace tessera
