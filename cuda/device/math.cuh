// Activations of fused kernels, on the formulas that the reference uses.
#pragma once

#include <type_traits>

#include "cuda/device/platform.cuh"
#include "tensor/ops/conv.h"
#include "tensor/ops/pointwise_functors.h"

namespace tessera::cuda {

__device__ inline float activate(Activation act, float z) { return act == Activation::kSilu ? functors::Silu::f(z) : z; }
__device__ inline float activation_slope(Activation act, float z) {
  return act == Activation::kSilu ? functors::Silu::df(z) : 1.0f;
}

// The same for results that are rounded to T, with the activation known to the compiler. f32 is exact to the last bits. Results of
// 16 bits keep 8 or 11 of them: the fast exponential and quotient, wrong in the 20th and later, do as well, and at the speed of
// memory there are some 25 instructions for an element, of which the exact quotient alone would take half.
template <class T>
__device__ float sigmoid(float z) {
  if constexpr (std::is_same_v<T, float>) {
    return functors::Sigmoid::f(z);
  } else {
    return __fdividef(1.0f, 1.0f + __expf(-z));  // exp of more than 88 is infinite, and 1 over it is 0
  }
}
template <class T, Activation kAct>
__device__ float activate(float z) {
  return kAct == Activation::kSilu ? z * sigmoid<T>(z) : z;
}
template <class T, Activation kAct>
__device__ float activation_slope(float z) {
  if constexpr (kAct != Activation::kSilu) {
    return 1.0f;
  } else if constexpr (std::is_same_v<T, float>) {
    return functors::Silu::df(z);
  } else {
    const float s = sigmoid<T>(z);
    return s + z * (s * (1.0f - s));
  }
}

// Calls f.operator()<kAct>() with the activation.
template <class F>
void with_activation(Activation act, F&& f) {
  if (act == Activation::kSilu) {
    f.template operator()<Activation::kSilu>();
  } else {
    f.template operator()<Activation::kNone>();
  }
}

}  // namespace tessera::cuda
