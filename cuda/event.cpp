#include "cuda/event.h"

#include <set>

namespace tessera::cuda {

namespace {
thread_local std::set<cudaStream_t> waiting;
}

void note_wait(cudaStream_t stream) { waiting.insert(stream); }
bool take_wait(cudaStream_t stream) { return waiting.erase(stream) > 0; }

}  // namespace tessera::cuda
