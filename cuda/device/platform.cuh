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
#include <type_traits>

#include "tensor/dtype.h"

#define TESSERA_SHARED(name, ...) __shared__ ::tessera::cuda::Same<__VA_ARGS__> name
#define TESSERA_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char tessera_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(tessera_dynamic_shared)
#define TESSERA_DEVICE_ASSERT(condition) assert(condition)

namespace tessera::cuda {

template <class T>
using Same = T;

#ifdef __CUDACC__  // launch.cpp reads this header too, through launch.cuh, and its compiler knows no device functions

// Conversions of the 16-bit floats in one instruction each, as bits: round to nearest even.
__device__ inline uint16_t bf16_bits(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
__device__ inline uint16_t f16_bits(float value) { return __half_as_ushort(__float2half_rn(value)); }
__device__ inline float f16_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

// sin(pi x) and cos(pi x). The pair in radians keeps a table on the stack for large arguments.
__device__ inline void sin_cos_pi(double x, double& sine, double& cosine) { sincospi(x, &sine, &cosine); }

// Tensor cores. All lanes of a warp call these together; a matrix is spread over their registers, two 16-bit numbers in each.
//
// Four 8 x 8 matrices from shared memory: lane 8 i + r brings the address of row r of matrix i, 16 bytes, aligned. Lane l gets of
// each matrix row l / 4, columns 2 (l % 4) and the next, the first in the low half; kTransposed: of the transposed matrix.
template <bool kTransposed>
__device__ inline void load_matrices(unsigned (&m)[4], const uint16_t* row) {
  const unsigned address = unsigned(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
  }
}

// d += a b with a 16 x 16, b 16 x 8, both of T, and d 16 x 8 in f32. As loaded above: a is the matrices (rows 0.., k 0..),
// (rows 8.., k 0..), (rows 0.., k 8..), (rows 8.., k 8..); b0 and b1 are those of k 0.. and 8.., rows being columns of b.
// Lane l has d[h][i] at row l / 4 + 8 h, column 2 (l % 4) + i.
template <class T>
__device__ inline void multiply_add(float (&d)[2][2], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[1][0]), "+f"(d[1][1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    static_assert(std::is_same_v<T, Half>);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[1][0]), "+f"(d[1][1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// Tensor cores of sm_90a alone (cuda/conv_wgmma.cu): the four warps of a warpgroup multiply together, straight out of shared
// memory, and go on meanwhile. A panel there is lines of 64 16-bit numbers, k to k + 63, from a multiple of 1024 bytes on; piece p
// of 16 bytes of line r lies at place p ^ r % 8 of the line, so that the eight lines read at once are on different banks.
//
// d += a b begins, with a 64 x 16 and b 16 x 64, both of T: the 64 lines from `a` on are its rows, those from `b` on its columns;
// both point at the first of 16 values of k in line 0 as if the pieces lay in order. Warp w, lane l of the warpgroup has d[j][h][i]
// at row 16 w + l / 4 + 8 h, column 8 j + 2 (l % 4) + i.
__device__ inline uint64_t panel_descriptor(const uint16_t* first) {
  constexpr uint64_t kBytesOfEightLines = 1024, kPiecesTakeTurns = 1;
  const uint64_t address = __cvta_generic_to_shared(first) & 0x3FFFF;
  return address >> 4 | uint64_t{1} << 16 | kBytesOfEightLines >> 4 << 32 | kPiecesTakeTurns << 62;
}
template <class T>
__device__ inline void begin_multiply_add(float (&d)[8][2][2], const uint16_t* a, const uint16_t* b) {
  const uint64_t left = panel_descriptor(a), right = panel_descriptor(b);
#define TESSERA_FOUR(j) "+f"(d[j][0][0]), "+f"(d[j][0][1]), "+f"(d[j][1][0]), "+f"(d[j][1][1])
#define TESSERA_WGMMA(type)                                                                                                      \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                                                       \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23," \
               " %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, 1, 1, 0, 0;"                                              \
               : TESSERA_FOUR(0), TESSERA_FOUR(1), TESSERA_FOUR(2), TESSERA_FOUR(3), TESSERA_FOUR(4), TESSERA_FOUR(5),           \
                 TESSERA_FOUR(6), TESSERA_FOUR(7)                                                                                \
               : "l"(left), "l"(right))
  if constexpr (std::is_same_v<T, BFloat16>) {
    TESSERA_WGMMA("bf16");
  } else {
    static_assert(std::is_same_v<T, Half>);
    TESSERA_WGMMA("f16");
  }
#undef TESSERA_WGMMA
#undef TESSERA_FOUR
}
// Around such products: registers that have been written can be d; those begun so far are a group; all groups are done. Between
// the first and the last nothing touches d.
__device__ inline void open_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ inline void wait_for_products(float (&d)[8][2][2]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int j = 0; j < 8; ++j) {  // no read of d moves before the wait
    asm volatile("" : "+f"(d[j][0][0]), "+f"(d[j][0][1]), "+f"(d[j][1][0]), "+f"(d[j][1][1])::"memory");
  }
}
// What this thread has stored in shared memory is there for products that begin after the next barrier.
__device__ inline void publish_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#endif  // __CUDACC__

}  // namespace tessera::cuda

#endif  // TESSERA_EMULATED_CUDA
