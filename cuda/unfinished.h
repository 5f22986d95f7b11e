// For the families whose kernels are still to come; goes when the last one is there.
#pragma once

#include "tensor/base/check.h"

namespace tessera::cuda {

[[noreturn]] inline void no_kernel(const char* op) { throw Error(ErrorCode::kBug, fmt::format("{}: no CUDA kernel yet", op)); }

}  // namespace tessera::cuda
