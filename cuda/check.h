// Calls of the CUDA runtime, each checked: a failure throws with CUDA's own words. Only cuda/ includes this.
#pragma once

#include <cuda_runtime.h>

#include "tensor/base/check.h"

namespace tessera::cuda {

// What went wrong decides the exit code: no memory is kMemory, no usable device kUsage, anything else is ours to mend (kBug).
ErrorCode code_of(cudaError_t error);

// Throws for anything but success; `call` names what was tried.
void check(cudaError_t error, const char* call);

}  // namespace tessera::cuda

// TESSERA_CUDA_CHECK(cudaMemcpyAsync(...)): the call in full is part of the message.
#define TESSERA_CUDA_CHECK(...) ::tessera::cuda::check((__VA_ARGS__), #__VA_ARGS__)
