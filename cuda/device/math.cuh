// Activations of fused kernels, on the formulas that the reference uses.
#pragma once

#include "cuda/device/platform.cuh"
#include "tensor/ops/conv.h"
#include "tensor/ops/pointwise_functors.h"

namespace tessera::cuda {

__device__ inline float activate(Activation act, float z) { return act == Activation::kSilu ? functors::Silu::f(z) : z; }
__device__ inline float activation_slope(Activation act, float z) {
  return act == Activation::kSilu ? functors::Silu::df(z) : 1.0f;
}

}  // namespace tessera::cuda
