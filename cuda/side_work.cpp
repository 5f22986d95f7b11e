#include "cuda/side_work.h"

#include <algorithm>
#include <cstdlib>

#include "cuda/cuda_backend.h"
#include "tensor/base/env.h"

namespace tessera {

namespace cuda {

namespace {
int& calls_in_use() {
  static int calls = std::max(0, std::atoi(env("TESSERA_CUDA_SIDE").value_or("8").c_str()));
  return calls;
}
thread_local SideWork* of_thread = nullptr;
}  // namespace

int side_calls() { return calls_in_use(); }
void set_side_calls(int calls) { calls_in_use() = calls; }

SideWork* SideWork::here() { return of_thread; }

SideWork::SideWork(cudaStream_t main, CachingAllocator& memory, cudaStream_t side, CachingAllocator& scratch)
    : main_(main), side_(side), scratch_(scratch), memory_(memory, side_calls()) {
  if (side_calls() > 0) of_thread = this;
}
SideWork::~SideWork() { of_thread = nullptr; }

void SideWork::fork() {
  Event ready;
  ready.record(main_);
  ready.make_wait(side_);
  forked_ = true;
  memory_.begin();
}

void SideWork::end() {
  if (!memory_.end()) return;
  if (group_) group_->make_wait(main_);
  if (!group_) group_.emplace();
  group_->record(side_);
}

void SideWork::join() {
  if (!forked_) return;
  Event done;
  done.record(side_);
  done.make_wait(main_);
  forked_ = false;
  group_.reset();
  memory_.joined();
}

}  // namespace cuda

int CudaBackend::calls_beside() const { return cuda::side_calls(); }
void CudaBackend::join_calls_beside() {
  if (cuda::SideWork* const side = cuda::SideWork::here()) side->join();
}

}  // namespace tessera
