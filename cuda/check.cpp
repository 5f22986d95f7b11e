#include "cuda/check.h"

namespace tessera::cuda {

ErrorCode code_of(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: return ErrorCode::kMemory;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver: return ErrorCode::kUsage;
    default: return ErrorCode::kBug;
  }
}

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // it is reported here, not once more by the next launch
  throw Error(code_of(error), fmt::format("CUDA: {} ({}) from {}", cudaGetErrorString(error), cudaGetErrorName(error), call));
}

}  // namespace tessera::cuda
