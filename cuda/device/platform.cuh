// What a kernel needs beyond the CUDA that a plain C++ compiler can be given: shared memory with a name, and single instructions of
// the GPU behind functions. tests/cuda_host runs the kernels on the CPU and brings a second definition of everything here.
//
//   TESSERA_SHARED(tile, float[8][33]);        shared memory of the block; `tile` is the array. No constructors.
//   TESSERA_DYNAMIC_SHARED(float, rows);       the launch's shared_bytes; `rows` is a pointer, 16-byte aligned
//   TESSERA_DEVICE_ASSERT(condition);          checked in the emulation and in builds without NDEBUG
#pragma once

#include <cuda_runtime.h>

#ifndef TESSERA_EMULATED_CUDA

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cassert>
#include <cstdint>

#define TESSERA_SHARED(name, ...) __shared__ ::tessera::cuda::Same<__VA_ARGS__> name
#define TESSERA_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char tessera_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(tessera_dynamic_shared)
#define TESSERA_DEVICE_ASSERT(condition) assert(condition)

namespace tessera::cuda {

template <class T>
using Same = T;

// Conversions of the 16-bit floats in one instruction each, as bits: round to nearest even.
__device__ inline uint16_t bf16_bits(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
__device__ inline uint16_t f16_bits(float value) { return __half_as_ushort(__float2half_rn(value)); }
__device__ inline float f16_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

// sin(pi x) and cos(pi x). The pair in radians keeps a table on the stack for large arguments.
__device__ inline void sin_cos_pi(double x, double& sine, double& cosine) { sincospi(x, &sine, &cosine); }

}  // namespace tessera::cuda

#endif
