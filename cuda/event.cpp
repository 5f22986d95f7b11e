#include "cuda/event.h"

#include <set>

namespace tessera::cuda {

namespace {
thread_local std::set<cudaStream_t> held_up;
}

void note_wait(cudaStream_t stream) { held_up.insert(stream); }
bool take_wait(cudaStream_t stream) { return held_up.erase(stream) > 0; }

}  // namespace tessera::cuda
