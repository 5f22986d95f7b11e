// A point in a stream's work that other streams, or the host, wait for.
#pragma once

#include "cuda/check.h"

namespace tessera::cuda {

// Streams of this thread that were made to wait for an event. The next kernel of such a stream follows more than the kernel before
// it in the stream, so launch() does not start it early.
void note_wait(cudaStream_t stream);
bool take_wait(cudaStream_t stream);  // whether one was noted since the last call

class Event {
 public:
  Event() { TESSERA_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() { (void)cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) {
    TESSERA_CUDA_CHECK(cudaEventRecord(event_, stream));
    recorded_ = true;
  }
  // For what was recorded last, if anything was: later work of `stream` waits in make_wait(), the host in wait(); passed() asks.
  void make_wait(cudaStream_t stream) const {
    if (!recorded_) return;
    TESSERA_CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0));
    note_wait(stream);
  }
  void wait() const {
    if (recorded_) TESSERA_CUDA_CHECK(cudaEventSynchronize(event_));
  }
  bool passed() const {
    if (!recorded_) return true;
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaErrorNotReady) return false;
    check(state, "cudaEventQuery");
    return true;
  }

 private:
  cudaEvent_t event_ = nullptr;
  bool recorded_ = false;
};

// A stream beside the default one, which has the work: neither waits for the other but by events.
class SideStream {
 public:
  SideStream() { TESSERA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~SideStream() { (void)cudaStreamDestroy(stream_); }
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace tessera::cuda
