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
class Pool {
 public:
  ~Pool() {
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
  Graph(std::shared_ptr<Pool> pool, cudaGraphExec_t exec) : pool_(std::move(pool)), exec_(exec) {}
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
  std::shared_ptr<Pool> pool_;
  cudaGraphExec_t exec_;
};

// A stream that is captured, and with it every stream that waits for an event of it, until it waits for them in turn: reductions
// over several ranks and work beside have one of their own. Whatever happens, it is no longer when this goes.
class CapturedStream {
 public:
  CapturedStream() {
    // The default stream cannot be captured, nor a stream that waits for it.
    // Its kernels come before those beside, whose stream has the least priority, as every stream has that asks for none.
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
    (void)cudaGetLastError();  // of an ended capture: it is not the next launch's
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
    // What the steps before had cached is what this one needs: the pool gets it from the driver.
    device_allocator().trim();
    CapturedStream stream;
    {
      const AllocatorGuard memory(pool_->allocator());
      const StreamGuard guard(stream.get());
      SideWork side(stream.get(), pool_->allocator(), side_.get(), pool_->side_scratch());
      work();
      side.join();
    }
    return std::make_unique<Graph>(pool_, stream.end());
  }

 private:
  std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();
  SideStream side_;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Recorder> CudaBackend::recorder() { return std::make_unique<cuda::GraphRecorder>(); }

}  // namespace tessera
