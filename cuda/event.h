// A point in a stream's work that other streams, or the host, wait for.
#pragma once

#include "cuda/check.h"

namespace tessera::cuda {

// The next kernel of a stream that was made to wait for an event follows more than the kernel before it, and is not started early.
void note_wait(cudaStream_t stream);
bool take_wait(cudaStream_t stream);  // whether there was one since the last call

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
  // What was recorded last; where nothing was, there is nothing to wait for.
  void hold_up(cudaStream_t stream) const {
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
