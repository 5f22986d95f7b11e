// Work beside the chain of a recorded step. Kernels of weight gradients wait for little and nothing waits for them before the
// update; in one stream each holds up the chain of the backward pass, although most leave multiprocessors idle. A fork by events
// makes them a branch of the graph.
//
//   main:  ... sums, dx --+-- gradient by the data -- sums, dx --+-- ... (wait for an older group) ... -- join -- update
//   side:                 +-- gradient by the weights -----------+-- ...
//
// What they read is memory of the main stream that is released when the calls are over: it is held back until the main stream has
// waited for them (tensor/beside.h). Their scratch is of an allocator that the side stream alone uses. All of it follows the order
// of the calls, so that a recording has the bits of the same calls in turn.
#pragma once

#include <optional>

#include "cuda/context.h"
#include "cuda/event.h"
#include "tensor/beside.h"

namespace tessera::cuda {

// Calls of a group; 0: nothing runs beside (TESSERA_CUDA_SIDE).
int side_calls();
void set_side_calls(int calls);

class SideWork {
 public:
  // For what this thread records on `main`, in memory of `memory`. The side stream is captured from the first fork to the end of
  // the capture, and must be there until then; `scratch` is its own.
  SideWork(cudaStream_t main, CachingAllocator& memory, cudaStream_t side, CachingAllocator& scratch);
  ~SideWork();
  SideWork(const SideWork&) = delete;
  SideWork& operator=(const SideWork&) = delete;

  template <class Work>
  void run(const Work& work) {
    fork();
    {
      const StreamGuard stream(side_);
      const AllocatorGuard memory(scratch_);
      work();
    }
    end();
  }
  void join();  // the main stream waits for all of it

  static SideWork* here();  // of this thread; null: nothing is recorded, or nothing runs beside

 private:
  void fork();
  void end();

  cudaStream_t main_, side_;
  CachingAllocator& scratch_;
  BesideMemory memory_;
  std::optional<Event> group_;  // the end of the last whole group
  bool forked_ = false;
};

// On the side stream where the caller says that nobody reads the results (BesideGuard) and there is one, else in turn.
template <class Work>
void beside(const Work& work) {
  SideWork* const side = BesideGuard::here() ? SideWork::here() : nullptr;
  side != nullptr ? side->run(work) : work();
}

}  // namespace tessera::cuda
